"""`btrm container build`: an image from its definition, its lock and a folder of wheels.

The packages are a stage of their own, and kept as an image under a name that follows from all that goes into it: where
only btrm has changed, a build takes that and installs nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
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
from btrm.container.variants import Image
from btrm.container.wheels import fill, wheel_folder
from btrm.images import image_digest
from btrm.launch.snapshot import code_digest
from btrm.plugins import shipped
from btrm.runs import StageError, git_revision, now, sha256_file, user_cache, write_json
from btrm.train.swift_series import SERIES

# A tenth of the default's (gzip -9) time to write, quicker to read, and hardly larger.
_PACKED = ("--mksquashfs-args", "-comp zstd -Xcompression-level 3")
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


@dataclass(frozen=True, slots=True)
class Base:
    """What both stages stand on, as apptainer is told it, and what names it for good."""

    bootstrap: str
    source: str
    digest: str


def build(order: Build) -> Path:
    """Build the image and its record beside it; return the image's path.

    Raises ConfigError for what cannot be asked, and StageError with the end of the log where a step fails.
    """
    if shutil.which("apptainer") is None:
        raise ConfigError("apptainer: not on PATH (a cluster often has it as a module: module load apptainer)")
    cache = order.cache or user_cache() / "containers"
    wheels = order.wheels or wheel_folder(order.image.packages)
    lacking = fill(order.image.packages, wheels)
    _say(f"{wheels}: {f'{len(lacking)} files fetched' if lacking else 'all files there, by their hashes'}")
    with _context(order) as context, _locked(cache):
        base = _base(order, cache, context)
        key = packages_key(order.image, base)
        record = _record(order, base, context)
        write_json(context / "image.json", record)
        arguments = _arguments(order, base, key, record, context)
        packages = _packages(arguments, key, cache, wheels, context)
        final = {**arguments, "packages_bootstrap": "localimage", "packages_base": str(packages)}
        command = _apptainer(final, wheels, ["--sandbox"] if order.sandbox else _PACKED, order.apptainer)
        _made(command, order.target, context / "btrm.def", context)
    digest = image_digest(str(order.target))
    write_json(record_path(order.target), {**record, "sha256": digest, "command": " ".join(sys.argv)})
    return order.target


def record_path(image: Path) -> Path:
    """Return where the record of a build lies: beside the image."""
    return image.with_name(f"{image.name}.json")


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


def _base(order: Build, cache: Path, context: Path) -> Base:
    """Return the base: what was named, the variant's own by digest, or a Debian that is made here once."""
    if order.base is not None:
        return _named_base(order.base)
    if order.image.bootstrap == "docker":
        assert order.image.base is not None
        return Base("docker", order.image.base, order.image.base.partition("@")[2])
    texts = [(context / name).read_text() for name in ("base.def", "system.sh")]
    target = cache / f"base-{hashlib.sha256(''.join(texts).encode()).hexdigest()[:16]}.sif"
    if not target.exists():
        words = ["--build-arg", f"context={context}"]
        words += ["--build-arg", f"mirror={order.mirror}"] if order.mirror else []
        _made(["apptainer", "build", *words], target, context / "base.def", context)
    return _named_base(str(target))


def _named_base(base: str) -> Base:
    """Return a base by its name: FILE, FILE@sha256:… (checked) or a registry's NAME@sha256:…"""
    name, _, digest = base.partition("@sha256:")
    path = Path(name).expanduser()
    if not path.exists():
        if not digest:
            raise ConfigError(f"--base {base}: neither a file nor a registry's reference by digest, NAME@sha256:…")
        return Base("docker", base.removeprefix("docker://"), f"sha256:{digest}")
    if path.is_dir():
        raise ConfigError(f"--base {base}: a folder has no digest; take an image file")
    found = sha256_file(path)
    if digest and found != digest:
        raise ConfigError(f"--base {name}: its sha256 is {found}, not {digest}")
    return Base("localimage", str(path.resolve()), f"sha256:{found}")


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
        "base": base.digest,
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
        "base_digest": base.digest,
        "driver": str(record["driver"]),
    }


def _packages(arguments: Mapping[str, str], key: str, cache: Path, wheels: Path, context: Path) -> Path:
    """Return the packages stage as an image, built unless an earlier build left it."""
    target = cache / f"packages-{key}.sif"
    if target.exists():
        _say(f"{target}: the packages are as they were, and are taken from there")
        return target
    (context / "packages.def").write_text(stage_one())
    known = {name: value for name, value in arguments.items() if f"{{{{ {name} }}}}" in stage_one()}
    _made(_apptainer(known, wheels, _PACKED, ()), target, context / "packages.def", context)
    return target


def _apptainer(arguments: Mapping[str, str], wheels: Path, words: Sequence[str], own: Sequence[str]) -> list[str]:
    told = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    return ["apptainer", "build", *words, *own, "--bind", f"{wheels.resolve()}:/mnt", *told]


def _made(command: Sequence[str], target: Path, definition: Path, context: Path) -> None:
    """Run a build into a scratch name and publish it by one rename."""
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    words = [*command, str(scratch), str(definition)]
    _say(f"building {target}")
    log = context / f"{definition.stem}.log"
    with log.open("w") as file:
        code = subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        _remove(scratch)
        told = "\n".join(log.read_text(errors="replace").splitlines()[-40:])
        raise StageError(f"apptainer build {target.name} failed ({code}):\n{told}")
    _remove(target)
    scratch.rename(target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _context(order: Build) -> Generator[Path]:
    """Make a folder with all that the definition copies; others may read it, since a build may run as another user."""
    with tempfile.TemporaryDirectory(prefix="btrm-build-") as name:
        context, folder = Path(name), shipped("containers")
        context.chmod(0o755)
        shutil.copyfile(order.image.packages.path, context / "packages.lock")
        shutil.copytree(folder / "patches", context / "patches", ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("btrm.def", "base.def", *_STAGED):
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
    done = subprocess.run([*words, "--wheel-dir", str(folder), str(checkout)], capture_output=True, text=True)
    if done.returncode:
        raise StageError(f"btrm's wheel: {done.stderr.strip()}")


@contextmanager
def _locked(cache: Path) -> Generator[None]:
    """Let one build at a time use the cache: two would make the same packages twice."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _say(text: str) -> None:
    print(f"btrm: {text}", file=sys.stderr, flush=True)
