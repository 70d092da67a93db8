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
from pathlib import Path

import btrm
from btrm.config import ConfigError
from btrm.container.apptainer import need_apptainer
from btrm.container.bases import Base, base_key, build_base, named_base
from btrm.container.record import Own, record
from btrm.container.run_build import PACKED, build_args, built, keep, kept, publish, record_path, say
from btrm.container.variants import Image
from btrm.container.wheels import fill, wheel_folder
from btrm.images import image_digest
from btrm.launch.snapshot import wheel_digest
from btrm.plugins import shipped
from btrm.publishing import write_json
from btrm.runs import StageError, sha256_file, user_cache
from btrm.train.swift_series import SERIES
from btrm.versions import git_revision

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
    cache = _cache(order)
    wheels = order.wheels or wheel_folder(order.image.packages)
    with _locked(cache), _context(order) as context:
        lacking = fill(order.image.packages, wheels)
        say(f"{wheels}: {f'{len(lacking)} files fetched' if lacking else 'all files there, by their hashes'}")
        wheel = _wheel(order.btrm, wheels, context / "btrm")
        base = _base(order, cache)
        key = packages_key(order.image, base)
        own_file = base.digest if base.bootstrap == "localimage" else None
        told = record(order.image, _own(order, wheel), base.origin, own_file)
        write_json(context / "image.json", told)
        _open_to_all(context)
        arguments = _arguments(order, base, key, told, context)
        packages = _packages(order, arguments, key, wheels, context)
        final = {**arguments, **_named_in(context, "packages", Base("localimage", str(packages), "", ""))}
        command = _words(final, wheels, ["--sandbox"] if order.sandbox else PACKED, order.apptainer)
        made = built(command, order.target, context / "btrm.def")
        # The record first: an image without one would pass for somebody else's.
        write_json(record_path(order.target), {**told, "sha256": image_digest(str(made))})
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
    if not kept(target):
        build_base(order.image, target, order.mirror, order.apptainer)
    return named_base(str(target))


def _own(order: Build, wheel: Path) -> Own:
    git = git_revision(order.btrm) if order.btrm is None or order.btrm.is_dir() else None
    return Own(wheel.name.split("-")[1], wheel_digest(wheel), git)


def _arguments(order: Build, base: Base, key: str, told: Mapping[str, object], context: Path) -> dict[str, str]:
    return {
        **_named_in(context, "packages", base),
        **_named_in(context, "", base),
        "python": f"python{order.image.packages.python}",
        "context": ".",
        "packages_key": key,
        "lock_sha256": str(told["lock_sha256"]),
        "variant": order.image.name,
        "version": str(told["version"]),
        "revision": str(told["git"]),
        "code": str(told["code"]),
        "patches_sha256": str(told["patches_sha256"]),
        "base_digest": base.origin,
        "driver": str(told["driver"]),
    }


def _named_in(context: Path, stage: str, base: Base) -> dict[str, str]:
    """Return the arguments for a stage's base. A file is called by a link: its path would stay in the image."""
    source, prefix = base.source, f"{stage}_" if stage else ""
    if base.bootstrap == "localimage":
        link = context / f"{prefix}base.sif"
        link.unlink(missing_ok=True)
        link.symlink_to(source)
        source = link.name
    return {f"{prefix}bootstrap": base.bootstrap, f"{prefix}base": source}


def _packages(order: Build, arguments: Mapping[str, str], key: str, wheels: Path, context: Path) -> Path:
    """Return the packages stage as an image, built unless an earlier build left it."""
    target = _cache(order) / f"packages-{key}.sif"
    if kept(target):
        say(f"{target}: the packages are as they were, and are taken from there")
        return target
    (context / "packages.def").write_text(stage_one())
    known = {name: value for name, value in arguments.items() if f"{{{{ {name} }}}}" in stage_one()}
    words = _words(known, wheels, PACKED, order.apptainer)
    return keep(built(words, target, context / "packages.def"), target)


def _cache(order: Build) -> Path:
    return order.cache or user_cache() / "containers"


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
        yield context


def _open_to_all(context: Path) -> None:
    """Let everyone read what goes into the image, whatever this user's umask."""
    for path in context.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)


def _wheel(source: Path | None, wheels: Path, folder: Path) -> Path:
    """Put btrm's own wheel into a folder: the one that was named, or one of the checkout that this is.

    What it is built with is in the lock, and comes from the same folder as all else.
    """
    folder.mkdir(mode=0o755)
    if source is not None and source.suffix == ".whl":
        return Path(shutil.copyfile(source, folder / source.name))
    checkout = source or Path(btrm.__file__).parent.parent
    if not (checkout / "pyproject.toml").exists():
        raise ConfigError(f"--btrm: {checkout} is no checkout; name one, or btrm's wheel")
    words = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    words += ["--no-index", "--find-links", str(wheels), "--wheel-dir", str(folder), str(checkout)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise StageError(f"btrm's wheel: {done.stderr.strip()}")
    (made,) = folder.glob("btrm-*.whl")
    return made


@contextmanager
def _locked(cache: Path) -> Generator[None]:
    """Let one build at a time use the cache: two would make the same packages twice."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise ConfigError(f"--cache {cache}: {error.strerror}; take one on a disk with locks, as /tmp") from None
        yield
