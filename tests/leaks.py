"""Looking for a text in all files of a folder, also while others still write and remove some of them."""

from __future__ import annotations

import os
from pathlib import Path

_LARGEST = 1 << 24  # bytes: nothing that a job writes is larger, but a database's own logs are


def files_in(root: Path) -> dict[Path, bytes]:
    """Return {file: its content} of a folder; what vanishes meanwhile was not left behind."""
    found: dict[Path, bytes] = {}
    for folder, _, names in os.walk(root):  # a folder that vanishes is no error to it
        for path in (Path(folder, name) for name in names):
            try:
                if path.is_file() and path.stat().st_size < _LARGEST:
                    found[path] = path.read_bytes()
            except FileNotFoundError:
                continue
    return found


def holding(text: str, root: Path) -> list[Path]:
    """Return the files that hold a text."""
    return [path for path, content in files_in(root).items() if text.encode() in content]
