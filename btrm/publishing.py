"""Atomic publishing: what is in its place is whole, and only an attempt that still owns the place puts it there."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

from btrm.leases import check_held


def replace(source: Path, target: Path) -> None:
    """Publish a rebuilt output in one rename; readers see the old file or the new one, never a part.

    Raises Fenced, as `win` does, where a newer attempt has taken this process's place.
    """
    _sync(source)
    check_held()
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)


def win(source: Path, target: Path) -> bool:
    """Publish a part that must never be replaced; return False where another attempt was first.

    A source that is a file is gone afterwards, won or not: whoever wrote into it again could write into the part.
    """
    _sync(source)
    check_held()
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        return _win_folder(source, target)
    won = True
    try:
        os.link(source, target)
    except OSError:
        if not target.exists():
            raise
        won = target.samefile(source)  # NFS: done, the answer was lost, and the second try met the first one's link
    source.unlink()
    return won


def _win_folder(source: Path, target: Path) -> bool:
    try:
        source.rename(target)  # fails on a target that holds anything
    except OSError:
        if not target.exists():
            raise
        return not source.exists()  # nobody else moves it: the rename was done, and its answer was lost
    return True


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:6]}")
    try:
        scratch.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
        replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; None where there is none, also where another process removes it just now."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None


def _sync(path: Path) -> None:
    """Flush to disk before the rename that makes it count: a power cut must not leave a complete, empty file."""
    for file in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
