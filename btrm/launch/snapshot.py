"""A copy of btrm's own code in the run, so that editing the checkout does not change jobs that are queued."""

from __future__ import annotations

import hashlib
import shutil
import uuid
import zipfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from btrm.config import ConfigError
from btrm.images import image_record
from btrm.launch.inside import REQUIRES
from btrm.plugins import shipped
from btrm.versions import REVISION, git_revision

_SHIPPED = ("experiments", "slurm")  # what builds an image has no place in a job
_SHIPPED_AT = "btrm/_shipped"


def snapshot(root: Path) -> Path:
    """Return RUN/.code/HASH with a copy of the package as it is now; made once for the same code."""
    target = snapshot_path(root)
    if not target.exists():
        _copy(_files(), target)
    return target


def snapshot_path(root: Path) -> Path:
    """Return where the snapshot of the code as it is now lies, made or not."""
    return root / ".code" / code_digest()


def code_digest() -> str:
    """Return what names the code as it is now, the same in a checkout, a copy of it and an installed wheel."""
    return digest_of({str(name): file.read_bytes() for name, file in _files().items()})


def wheel_digest(wheel: Path) -> str:
    """Return what `code_digest` will be where a wheel of btrm is installed."""
    with zipfile.ZipFile(wheel) as file:
        names = [name for name in file.namelist() if name.startswith("btrm/") and not name.endswith("/")]
        own = tuple(f"{_SHIPPED_AT}/{folder}/" for folder in _SHIPPED)
        code = [name for name in names if name.startswith(own) or not name.startswith(f"{_SHIPPED_AT}/")]
        return digest_of({name: file.read(name) for name in code})


def digest_of(files: Mapping[str, bytes]) -> str:
    """Return 16 hex digits of the sha256 of files and their names."""
    lines = (f"{name}\0{hashlib.sha256(content).hexdigest()}\n" for name, content in sorted(files.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def check_code(digest: str | None, place: str | None) -> None:
    """Raise ConfigError where the code that runs is not the launcher's, whose digest this is; None asks for nothing.

    In an image without the run's folder, or where a file of the copy was changed, other code would do the work.
    """
    if digest is None or (here := code_digest()) == digest:
        return
    own = image_record()
    whose = f", the image's own of {own['version']}" if own.get("code") == here else ""
    if place is not None:
        raise ConfigError(
            f"the code at {Path(__file__).parent.parent} ({here}{whose}) is not the copy that was submitted, {place}: "
            "was the copy changed, or is the run not bound into the image?"
        )
    raise ConfigError(
        f"the code at {Path(__file__).parent.parent} ({here}{whose}) is not the launcher's ({digest}), "
        "of which no copy was made: build the image anew, or submit with a copy"
    )


def _files() -> dict[Path, Path]:
    package = Path(__file__).parent.parent
    own = {file.relative_to(package): file for file in _sources(package)}
    files = {Path("btrm") / name: file for name, file in own.items() if name.parts[0] != "_shipped"}
    for folder in _SHIPPED:
        files |= {Path(_SHIPPED_AT) / folder / f.relative_to(shipped(folder)): f for f in _sources(shipped(folder))}
    return files


def _sources(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.rglob("*")) if p.is_file() and "__pycache__" not in p.parts]


def _requires() -> list[str]:
    """Return what btrm needs as its metadata has it; nothing where it runs from a folder that was never installed."""
    try:
        return metadata.requires("btrm") or []
    except metadata.PackageNotFoundError:
        return []


def _copy(files: dict[Path, Path], target: Path) -> None:
    scratch = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    for name, file in files.items():
        (scratch / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, scratch / name)
    (scratch / REVISION).write_text(git_revision() or "")
    (scratch / REQUIRES).write_text("\n".join(_requires()))
    try:
        scratch.rename(target)
    except OSError:  # another submission was first
        shutil.rmtree(scratch)
        if not target.exists():
            raise
