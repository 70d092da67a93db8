"""The image that all tests of a session share: the cpu variant, built as people build it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Outside pytest's own folders, which nobody else may read: a build may run as another user. What is here is taken
# only by what it was made from, so that the next session starts from it.
_KEPT = Path("/var/tmp") / f"btrm-tests-{os.getuid()}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give whichever test is the first to need the image the time to build it."""
    for item in items:
        if "cpu_image" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(1800), append=False)


@pytest.fixture(scope="session")
def image_cache() -> Path:
    """Where the base, the wheels and the packages of built images are kept."""
    _KEPT.mkdir(mode=0o755, exist_ok=True)
    return _KEPT


@pytest.fixture(scope="session")
def cpu_image(request: pytest.FixtureRequest, image_cache: Path) -> Path:
    """The cpu image, built by the commands that people use, unless it is there and was made from all that is here now.

    What needs a network comes first, the base and the wheels; the build itself has none.
    """
    from btrm.container.run_build import record_path

    request.getfixturevalue("need_apptainer")
    image = image_cache / f"btrm-cpu-{made_from()}.sif"
    if not (image.exists() and record_path(image).exists()):
        container("wheels", "--variant", "cpu", str(image_cache / "wheels"))
        build_cpu(image, image_cache, cpu_base(image_cache))
    return image


def made_from() -> str:
    """Return what names all that goes into the cpu image."""
    from btrm.container.variants import get_image
    from btrm.launch.snapshot import code_digest
    from btrm.plugins import shipped

    folder = shipped("containers")
    texts = [path.read_text() for path in sorted([*folder.glob("*.*"), *folder.glob("patches/*/*")])]
    whole = "".join([code_digest(), get_image("cpu").packages.path.read_text(), *texts])
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def cpu_base(cache: Path) -> Path:
    """Return the base of the cpu image, built where it is not there."""
    from btrm.container.bases import base_key
    from btrm.container.run_build import kept
    from btrm.container.variants import get_image

    base = cache / f"base-{base_key(get_image('cpu'))}.sif"
    if not kept(base):
        container("base", "--variant", "cpu", str(base))
    return base


def build_cpu(image: Path, cache: Path, base: Path, *words: str) -> str:
    """Build the cpu image by its command, without a network where that can be taken away; return what it said."""
    places = ["--cache", str(cache), "--wheels", str(cache / "wheels"), "--base", str(base)]
    return container("build", "--variant", "cpu", *places, *words, str(image), alone=True)


def container(*words: str, alone: bool = False) -> str:
    """Run a command of `btrm container`; alone: in a network namespace of its own, where this user may make one."""
    apart = ["unshare", "--net"]
    may = alone and subprocess.run([*apart, "true"], capture_output=True, check=False).returncode == 0
    command = [*(apart if may else []), sys.executable, "-m", "btrm.cli", "container", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr
