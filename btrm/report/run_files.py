"""Where evaluated runs lie below some folders: every eval.jsonl, and logs of older runs where there is none."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

EVAL = "eval.jsonl"
OLD_LOG = re.compile(r"eval_(?P<checkpoint>.+)_seed(?P<seed>\d+)\.log\Z")
# Large, and never above a run.
_SKIPPED = frozenset({"checkpoints", "parts", "__pycache__", "site-packages", "node_modules", "wandb", "hub"})


@dataclass(slots=True)
class Found:
    """The folders that hold an eval.jsonl, those that hold older logs alone, and what could not be looked into."""

    evaluated: list[Path] = field(default_factory=list[Path])
    logged: dict[Path, list[Path]] = field(default_factory=dict[Path, list[Path]])
    left_out: list[str] = field(default_factory=list[str])


def find_runs(roots: Sequence[Path]) -> Found:
    """Look below the roots, each folder once whatever links lead to it; real folders give runs their names."""
    found = Found()
    seen: set[tuple[int, int]] = set()
    folders, links = list(roots), list[Path]()
    while folders or links:
        folder = folders.pop() if folders else links.pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            _look(folder, found, folders, links)
        except OSError as error:
            found.left_out.append(f"{folder}: {error.strerror}")
    found.evaluated = list(_once(sorted(found.evaluated), seen))
    return found


def _look(folder: Path, found: Found, folders: list[Path], links: list[Path]) -> None:
    below: list[os.DirEntry[str]] = []
    logs: list[Path] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name == EVAL:
                found.evaluated.append(folder)
                return
            if OLD_LOG.match(entry.name):
                logs.append(folder / entry.name)
            elif entry.name[0] != "." and entry.name not in _SKIPPED and entry.is_dir():
                below.append(entry)
    if logs:
        found.logged[folder] = sorted(logs)
    for entry in below:
        (links if entry.is_symlink() else folders).append(folder / entry.name)


def _once(evaluated: Sequence[Path], seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Yield the folders whose eval.jsonl is not another one's by a link."""
    for folder in sorted(evaluated, key=lambda folder: (folder / EVAL).is_symlink()):
        try:
            status = (folder / EVAL).stat()
        except OSError:
            yield folder  # reading it will tell
            continue
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            yield folder


def run_name(folder: Path, root: Path) -> str:
    """Return a run's name: its path below the common root, without the stage's folder where that is `evaluate`."""
    run = folder.parent if folder.name == "evaluate" else folder
    name = os.path.relpath(run, root)
    return run.resolve().name if name in {".", ".."} else name
