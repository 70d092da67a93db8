"""What the file system of a run's folder can do: locks, hard links and renames from one folder to another."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

LOCK, LINK, RENAME = "flock", "hard link to another folder", "rename to another folder"


def probe(folder: Path) -> dict[str, str]:
    """Return {what: why it fails, '' where it works}, tried in a folder; nothing where it cannot be written."""
    try:
        with tempfile.TemporaryDirectory(prefix=".btrm-doctor-", dir=folder, ignore_cleanup_errors=True) as scratch:
            return dict(_tries(Path(scratch)))
    except OSError:
        return {}  # which is told of the folder itself


def _tries(scratch: Path) -> Iterator[tuple[str, str]]:
    below = scratch / "attempts" / "one"
    below.mkdir(parents=True)
    part = below / "part"
    part.touch()
    yield LOCK, _why_not(lambda: _lock(part))
    yield LINK, _why_not(lambda: os.link(part, scratch / "part"))
    yield RENAME, _why_not(lambda: below.rename(scratch / "one"))


def _lock(path: Path) -> None:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _why_not(action: Callable[[], object]) -> str:
    try:
        action()
    except OSError as error:
        return error.strerror or str(error)
    return ""
