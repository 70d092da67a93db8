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
    """The cpu image, built by the commands that people use, unless it is there for this very code.

    What needs a network comes first, the base and the wheels; the build itself has none.
    """
    from btrm.container.bases import base_key, record_path
    from btrm.container.variants import get_image
    from btrm.launch.snapshot import code_digest

    request.getfixturevalue("need_apptainer")
    image = image_cache / f"btrm-cpu-{code_digest()}.sif"
    if not record_path(image).exists():
        for old in image_cache.glob("btrm-cpu-*"):
            old.unlink()
        base = image_cache / f"base-{base_key(get_image('cpu'))}.sif"
        if not base.exists():
            container("base", "--variant", "cpu", str(base))
        container("wheels", "--variant", "cpu", str(image_cache / "wheels"))
        build_cpu(image, image_cache, base)
    return image


def build_cpu(image: Path, cache: Path, base: Path, *words: str) -> str:
    """Build the cpu image by its command, without a network where that can be taken away; return what it said."""
    places = ["--cache", str(cache), "--wheels", str(cache / "wheels"), "--base", str(base)]
    return container("build", "--variant", "cpu", *places, *words, str(image), alone=os.getuid() == 0)


def container(*words: str, alone: bool = False) -> str:
    """Run a command of `btrm container`, alone: in a network namespace of its own."""
    command = [*(["unshare", "--net"] if alone else []), sys.executable, "-m", "btrm.cli", "container", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr
