"""The image that all tests of a session share: the cpu variant, built as people build it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Outside pytest's own folders, which nobody else may read: a build may run as another user. What is here is taken
# only by what it was made from, so that the next session starts from it.
_KEPT = Path("/var/tmp") / f"btrm-tests-{os.getuid()}"


@pytest.fixture(scope="session")
def image_cache() -> Path:
    """Where the base, the wheels and the packages of built images are kept."""
    _KEPT.mkdir(mode=0o755, exist_ok=True)
    return _KEPT


@pytest.fixture(scope="session")
def cpu_image(request: pytest.FixtureRequest, image_cache: Path) -> Path:
    """The cpu image, built from the definition by the command that people use, unless it is there for this very code."""
    from btrm.container.build import record_path
    from btrm.launch.snapshot import code_digest

    request.getfixturevalue("need_apptainer")
    image = image_cache / f"btrm-cpu-{code_digest()}.sif"
    if not record_path(image).exists():
        for old in image_cache.glob("btrm-cpu-*"):
            old.unlink()
        build_cpu(image, image_cache)
    return image


def build_cpu(image: Path, cache: Path, *words: str) -> str:
    """Build the cpu image by its command and return what it said."""
    command = [sys.executable, "-m", "btrm.cli", "container", "build", "--variant", "cpu", "--cache", str(cache)]
    command += ["--wheels", str(cache / "wheels"), *words, str(image)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cache, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr
