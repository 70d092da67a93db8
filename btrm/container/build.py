"""`btrm container build`: an image from its definition, its lock and a folder of wheels.

The packages are a stage of their own, and kept as an image under a name that follows from all that goes into it: where
only btrm has changed, a build takes that and installs nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import btrm
from btrm.config import ConfigError
from btrm.container.apptainer import need_apptainer
from btrm.container.bases import Base, base_key, build_base, named_base, record_path
from btrm.container.run_build import PACKED, build_args, built, publish, say
from btrm.container.variants import Image
from btrm.container.wheels import fill, wheel_folder
from btrm.images import image_digest
from btrm.launch.snapshot import code_digest
from btrm.plugins import shipped
from btrm.runs import StageError, git_revision, now, sha256_file, user_cache, write_json
from btrm.train.swift_series import SERIES

_STAGED = ("system.sh", "packages.sh")
_SECOND_STAGE = "\nBootstrap: {{ bootstrap }}\n"


@dataclass(frozen=True, slots=True)
class Build:
    """What is to be built, and from what. None: where things are kept by default.

    `base` is an image file, or a registry's reference by digest; `cache` holds what a later build can take.
    """

    image: Image
    target: Path
    sandbox: bool = False
    base: str | None = None
    wheels: Path | None = None
    cache: Path | None = None
    btrm: Path | None = None
    mirror: str | None = None
    apptainer: Sequence[str] = ()


def build(order: Build) -> Path:
    """Build the image and its record beside it; return the image's path.

    Raises ConfigError for what cannot be asked, and StageError with the end of the log where a step fails.
    """
    need_apptainer()
    cache = order.cache or user_cache() / "containers"
    wheels = order.wheels or wheel_folder(order.image.packages)
    lacking = fill(order.image.packages, wheels)
    say(f"{wheels}: {f'{len(lacking)} files fetched' if lacking else 'all files there, by their hashes'}")
    with _context(order) as context, _locked(cache):
        base = _base(order, cache)
        key = packages_key(order.image, base)
        record = _record(order, base, context)
        write_json(context / "image.json", record)
        arguments = _arguments(order, base, key, record, context)
        packages = _packages(arguments, key, cache, wheels, context)
        final = {**arguments, "packages_bootstrap": "localimage", "packages_base": str(packages)}
        command = _words(final, wheels, ["--sandbox"] if order.sandbox else PACKED, order.apptainer)
        made = built(command, order.target, context / "btrm.def")
        # The record first: an image without one would pass for somebody else's.
        told = {**record, "sha256": image_digest(str(made)), "command": " ".join(sys.argv)}
        write_json(record_path(order.target), told)
        return publish(made, order.target)


def packages_key(image: Image, base: Base) -> str:
    """Return what names a packages stage: its lock, base, patches, and the texts that install it."""
    folder = shipped("containers")
    texts = [stage_one(), *((folder / name).read_text() for name in _STAGED)]
    parts = [image.packages.python, sha256_file(image.packages.path), base.digest, SERIES, *texts]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def stage_one() -> str:
    """Return the definition's first stage, as a definition of its own."""
    text = (shipped("containers") / "btrm.def").read_text()
    first, found, _ = text.partition(_SECOND_STAGE)
    assert found, "btrm.def has no second stage"
    return first


def _base(order: Build, cache: Path) -> Base:
    """Return the base: what was named, the variant's own by digest, or a Debian that is made here once."""
    if order.base is not None:
        return named_base(order.base)
    if order.image.bootstrap == "docker":
        assert order.image.base is not None
        return named_base(order.image.base)
    target = cache / f"base-{base_key(order.image)}.sif"
    return named_base(str(target if target.exists() else build_base(order.image, target, order.mirror)))


def _record(order: Build, base: Base, context: Path) -> dict[str, object]:
    """Return what the image says of itself; the labels say the same."""
    lock = order.image.packages
    return {
        "variant": order.image.name,
        "version": btrm.__version__,
        "python": lock.python,
        "lock_sha256": sha256_file(context / "packages.lock"),
        "left_out": list(lock.leave_out),
        "patches_sha256": SERIES,
        "base": base.origin,
        "driver": order.image.driver,
        "git": git_revision(),
        "code": code_digest(),
        "built": now(),
    }


def _arguments(order: Build, base: Base, key: str, record: Mapping[str, object], context: Path) -> dict[str, str]:
    return {
        "packages_bootstrap": base.bootstrap,
        "packages_base": base.source,
        "bootstrap": base.bootstrap,
        "base": base.source,
        "python": f"python{order.image.packages.python}",
        "context": str(context),
        "packages_key": key,
        "lock_sha256": str(record["lock_sha256"]),
        "variant": order.image.name,
        "version": str(record["version"]),
        "revision": str(record["git"]),
        "code": str(record["code"]),
        "patches_sha256": str(record["patches_sha256"]),
        "base_digest": base.origin,
        "driver": str(record["driver"]),
    }


def _packages(arguments: Mapping[str, str], key: str, cache: Path, wheels: Path, context: Path) -> Path:
    """Return the packages stage as an image, built unless an earlier build left it."""
    target = cache / f"packages-{key}.sif"
    if target.exists():
        say(f"{target}: the packages are as they were, and are taken from there")
        return target
    (context / "packages.def").write_text(stage_one())
    known = {name: value for name, value in arguments.items() if f"{{{{ {name} }}}}" in stage_one()}
    return publish(built(_words(known, wheels, PACKED, ()), target, context / "packages.def"), target)


def _words(arguments: Mapping[str, str], wheels: Path, words: Sequence[str], own: Sequence[str]) -> list[str]:
    return [*words, *own, "--bind", f"{wheels.resolve()}:/mnt", *build_args(arguments)]


@contextmanager
def _context(order: Build) -> Generator[Path]:
    """Make a folder with all that the definition copies; others may read it, since a build may run as another user."""
    with tempfile.TemporaryDirectory(prefix="btrm-build-") as name:
        context, folder = Path(name), shipped("containers")
        context.chmod(0o755)
        shutil.copyfile(order.image.packages.path, context / "packages.lock")
        shutil.copytree(folder / "patches", context / "patches", ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("btrm.def", *_STAGED):
            shutil.copyfile(folder / file, context / file)
        _wheel(order.btrm, context / "btrm")
        for path in context.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield context


def _wheel(source: Path | None, folder: Path) -> None:
    """Put btrm's own wheel into a folder: the one that was named, or one of the checkout that this is."""
    folder.mkdir()
    if source is not None and source.suffix == ".whl":
        shutil.copyfile(source, folder / source.name)
        return
    checkout = source or Path(btrm.__file__).parent.parent
    if not (checkout / "pyproject.toml").exists():
        raise ConfigError(f"--btrm: {checkout} is no checkout; name one, or btrm's wheel")
    words = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    alone = ["--no-build-isolation"] if find_spec("hatchling") and find_spec("editables") else []  # without a network
    done = subprocess.run([*words, *alone, "--wheel-dir", str(folder), str(checkout)], capture_output=True, text=True)
    if done.returncode:
        raise StageError(f"btrm's wheel: {done.stderr.strip()}")


@contextmanager
def _locked(cache: Path) -> Generator[None]:
    """Let one build at a time use the cache: two would make the same packages twice."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
