"""Model folders and adapters: what a folder holds, which base an adapter belongs to, which checkpoint is whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

from btrm.config import ConfigError
from btrm.publishing import read_json, write_json
from btrm.runs import sha256_path, user_cache

MARK = "btrm.json"
Kind = Literal["full", "adapter"]
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")


def checkpoint_kind(folder: Path) -> Kind:
    """Say whether a folder holds a full model or an adapter; raise ConfigError where it holds neither.

    A folder without weights is refused rather than read as its base model.
    """
    if (folder / "adapter_config.json").exists() and any((folder / name).exists() for name in _ADAPTERS):
        return "adapter"
    if (folder / "config.json").exists() and any((folder / name).exists() for name in _WEIGHTS):
        return "full"
    found = ", ".join(sorted(p.name for p in folder.iterdir())[:12]) if folder.is_dir() else "no such folder"
    raise ConfigError(
        f"{folder}: neither weights (config.json with {_WEIGHTS[0]}) nor an adapter (adapter_config.json with "
        f"{_ADAPTERS[0]}); found: {found or 'nothing'}"
    )


def base_identity(model: str) -> str:
    """Return what an adapter remembers of its base: a digest of a folder's config and weights, or a hub's name."""
    folder = Path(model)
    if not folder.is_dir():
        return f"hub:{model}"
    if checkpoint_kind(folder) == "adapter":
        raise ConfigError(f"{model}: an adapter cannot be the base of an adapter; merge it first")
    files = sorted({*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")})
    return "sha256:" + "-".join(known_sha256(file)[:24] for file in files)


def known_sha256(path: Path) -> str:
    """Return the sha256 of a file or folder, read once a user while no file's size, time or inode changes.

    The elements of an array would otherwise each read a whole model before their first useful line.
    """
    files = [path] if path.is_file() else [p for p in sorted(path.rglob("*")) if p.is_file()]
    return _sha256(path.resolve(), tuple(_stamp(file) for file in files))


def _stamp(file: Path) -> tuple[str, int, int, int]:
    stat = file.stat()
    return str(file), stat.st_size, stat.st_mtime_ns, stat.st_ino


@cache
def _sha256(path: Path, stamps: tuple[tuple[str, int, int, int], ...]) -> str:
    note = user_cache() / "sha256" / hashlib.sha256(repr((str(path), stamps)).encode()).hexdigest()
    with contextlib.suppress(OSError, ValueError):
        return json.loads(note.read_text())
    digest = sha256_path(path)
    with contextlib.suppress(OSError):  # a home that cannot be written to only costs the time
        write_json(note, digest)
    return digest


def check_adapter_base(adapter: Path, model: str) -> None:
    """Raise ConfigError unless `adapter` was made for `model`.

    The trainers' mark decides where there is one; for a foreign adapter its own `base_model_name_or_path` does.
    """
    if checkpoint_kind(adapter) != "adapter":
        raise ConfigError(f"{adapter}: a full model, not an adapter")
    mark = read_mark(adapter)
    if mark is not None and "base" in mark:
        ours = base_identity(model)
        if mark["base"] != ours:
            raise ConfigError(f"{adapter}: an adapter for another base (made for {mark['base']}, {model} is {ours})")
        return
    named = str(json.loads((adapter / "adapter_config.json").read_text()).get("base_model_name_or_path"))
    same_folder = Path(named).is_dir() and Path(model).is_dir() and Path(named).samefile(model)
    if named != model and not same_folder:
        raise ConfigError(f"{adapter}: an adapter for another base (made for {named!r}, not {model!r})")


def read_mark(folder: Path) -> dict[str, Any] | None:
    """Return the mark that our trainers leave in a finished checkpoint, or None."""
    return read_json(folder / MARK)


def write_mark(folder: Path, base: str, step: int, seen_elsewhere: Mapping[str, int] | None = None) -> None:
    """Declare a checkpoint whole: flush its files to disk, then name them with their sizes, by rename.

    `seen_elsewhere` are sizes as other nodes see them: a file that one has just written may not show on another yet.
    """
    for file in _files(folder):
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    write_json(folder / MARK, {"base": base, "step": step, "files": {**(seen_elsewhere or {}), **file_sizes(folder)}})


def file_sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of each file of a checkpoint, as this machine sees them."""
    return {str(file.relative_to(folder)): file.stat().st_size for file in _files(folder)}


def is_whole(folder: Path) -> bool:
    """Say whether a checkpoint is marked and every file that the mark names is there with its size."""
    mark = read_mark(folder)
    if mark is None:
        return False
    return all(_size(folder / name) == size for name, size in cast("dict[str, int]", mark["files"]).items())


def _size(file: Path) -> int | None:
    """Return a file's size; None where it is not there: its trainer may be deleting the checkpoint just now."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def checkpoints(folder: Path) -> list[Path]:
    """Return the `checkpoint-N` folders below `folder`, by step."""
    found = [p for p in folder.glob("checkpoint-*") if p.name.rpartition("-")[2].isdecimal() and p.is_dir()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """Return N of a folder named `checkpoint-N`."""
    return int(checkpoint.name.rpartition("-")[2])


def _files(folder: Path) -> Iterator[Path]:
    return (
        p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != MARK and not p.name.startswith(f".{MARK}")
    )
