"""Copies of models, images and data on a node's own disk, made once a node, whoever comes first.

A copy's name is a digest of where it came from and of every file's size and time: a source that changed gets another
copy. It is published by one rename, under a lock of the node's kernel, so a copy that is there is whole, and a process
that dies leaves nothing that another would take for one. Old copies are the scheduler's to remove with the scratch.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SPARE = 1.05  # of the bytes to copy: file systems need some of their own
_COPIES = "btrm-staged"


@dataclass(slots=True)
class Staging:
    """What was staged. `local` maps each path to what to read: its copy, or itself where `kept` says why not.

    `seconds` were spent here (copying, and waiting for another's copy of the same) on `bytes` copied; `saved_s` is what
    the copies took to make that were found ready.
    """

    local: dict[Path, Path] = field(default_factory=dict[Path, Path])
    kept: dict[Path, str] = field(default_factory=dict[Path, str])
    bytes: int = 0
    seconds: float = 0.0
    saved_s: float = 0.0

    def results(self) -> dict[str, Any]:
        """Return the figures for a manifest."""
        found = {"bytes": self.bytes, "seconds": round(self.seconds, 3), "saved_s": round(self.saved_s, 3)}
        return {**found, "kept": {str(path): why for path, why in self.kept.items()}}


def stage_in(paths: Iterable[Path], scratch: Path) -> Staging:
    """Copy files and folders to `scratch` (a node's own disk; variables in it are filled in), or find them there.

    Links are followed: the hub's snapshots are made of them. What cannot be copied is read where it is.
    """
    started = time.monotonic()
    staging = Staging()
    # A user's own folder: scratch is often one for all, and nobody else may put a file where ours is looked for.
    home = Path(os.path.expandvars(scratch)).expanduser() / f"{_COPIES}-{os.getuid()}"
    for path in dict.fromkeys(paths):
        try:
            staging.local[path] = _stage(path, home, staging)
        except OSError as error:
            staging.local[path] = path
            staging.kept[path] = str(error)
    staging.seconds = time.monotonic() - started
    return staging


def _stage(path: Path, home: Path, staging: Staging) -> Path:
    _own(home)
    files = listing(path)
    key = hashlib.sha256(json.dumps([str(path.resolve()), files]).encode()).hexdigest()[:16]
    folder, record = home / key, home / f"{key}.json"
    with _locked(home / f"{key}.lock"):
        copy = folder / path.name
        if record.exists() and copy.exists() and _sizes(listing(copy)) == _sizes(files):
            staging.saved_s += json.loads(record.read_text())["seconds"]
            return folder / path.name
        started = time.monotonic()
        shutil.rmtree(folder, ignore_errors=True)  # a tidier of old files may have eaten parts of it
        _copy(path, folder, files)
        record.write_text(json.dumps({"source": str(path), "seconds": time.monotonic() - started}))
        staging.bytes += sum(_sizes(files).values())
    return folder / path.name


def _own(home: Path) -> None:
    if "$" in str(home):
        raise FileNotFoundError(f"{home.parent}: a variable in it is not set on this node")
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    if home.stat().st_uid != os.getuid() or home.is_symlink():
        raise PermissionError(f"{home} belongs to someone else")


def listing(path: Path) -> dict[str, tuple[int, int]]:
    """Return {relative name: (size, time in ns)} of a file or of all files in a folder; raise OSError for neither."""
    files = [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if file.is_file()]
    if not files and not path.is_dir():
        raise FileNotFoundError(f"{path}: no such file or folder")
    return {str(file.relative_to(path)): (file.stat().st_size, file.stat().st_mtime_ns) for file in files}


def _sizes(files: dict[str, tuple[int, int]]) -> dict[str, int]:
    return {name: size for name, (size, _) in files.items()}


def _copy(path: Path, folder: Path, files: dict[str, tuple[int, int]]) -> None:
    """Copy and publish by one rename; raise OSError where there is no room or the source changed meanwhile."""
    size = sum(_sizes(files).values())
    free = shutil.disk_usage(folder.parent).free
    if size * _SPARE > free:
        raise OSError(f"{folder.parent}: {free / 1e9:.1f} GB free, {size / 1e9:.1f} GB needed")
    scratch = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    scratch.mkdir()
    try:
        if path.is_file():
            shutil.copy2(path, scratch / path.name)
        else:
            shutil.copytree(path, scratch / path.name)
        if listing(path) != files or _sizes(listing(scratch / path.name)) != _sizes(files):
            raise OSError(f"{path} changed while it was copied")
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Generator[None]:
    """Hold a lock of this node's kernel; it goes with the process, whatever ends it."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
