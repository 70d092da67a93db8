"""What stands behind a checkpoint's name, told apart by files: a full model, a LoRA adapter, or neither."""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from btrm.checkpoints import check_adapter_base, checkpoint_kind, known_sha256
from btrm.config import ConfigError
from btrm.hub import is_hub_name
from btrm.judges.adapter import check_adapter, model_shapes
from btrm.runs import StageRun

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Something to judge: a model, or an adapter on one. `model` is a folder or a hub's name."""

    label: str
    model: str
    model_hash: str
    adapter: Path | None = None
    adapter_hash: str | None = None
    adapter_rank: int = 0


def find_checkpoints(run: StageRun, members: Mapping[str, str], base: str | None) -> list[Checkpoint]:
    """Return the checkpoints behind {label: reference}; a glob gives one a folder, by its name, in numeric order.

    Raises ConfigError, with all that is wrong in one message, before any model is loaded.
    """
    problems: list[str] = []
    found: dict[str, Checkpoint] = {}
    base_model = run.model(base) if base is not None else None
    for label, reference in members.items():
        for name, path in _expand(run, label, reference, problems):
            if name in found:
                problems.append(f"checkpoints: two are called {name!r}; name them one by one")
            elif isinstance(checkpoint := _inspect(name, path, base_model), Checkpoint):
                found[name] = checkpoint
            else:
                problems += checkpoint
    if problems:
        raise ConfigError("\n".join(problems))
    return list(found.values())


def find_model(run: StageRun, label: str, reference: str) -> Checkpoint:
    """Return the full model behind a reference; raise ConfigError where there is none."""
    path = run.model(reference)
    folder = Path(path)
    if not folder.exists() and is_hub_name(path):
        return Checkpoint(label, path, path)
    if checkpoint_kind(folder) == "adapter":
        raise ConfigError(f"{path} is a LoRA adapter, not a model; merge it first")
    return Checkpoint(label, path, _model_hash(path))


def natural_key(text: str) -> tuple[tuple[int, int | str], ...]:
    """Return a sort key that puts checkpoint-50 before checkpoint-100."""
    pieces = re.split(r"(\d+)", text)
    return tuple((1, int(piece)) if piece.isdigit() else (0, piece) for piece in pieces)


def _expand(run: StageRun, label: str, reference: str, problems: list[str]) -> list[tuple[str, str]]:
    """Return (label, path) of a reference, of each folder behind it where it is a glob."""
    if not _LABEL.match(label):
        problems.append(f"checkpoints: label {label!r}: letters, digits, dot, dash and underscore only")
        return []
    if glob.has_magic(reference):
        paths = sorted(map(str, run.paths.matches(reference)), key=natural_key)
        if not paths:
            problems.append(f"checkpoints: {label}: no folder matches {reference}")
        return [(Path(path).name, path) for path in paths]
    return [(label, run.model(reference))]


def _inspect(label: str, path: str, base: str | None) -> Checkpoint | list[str]:
    """Return the checkpoint at `path`, or what is wrong with it."""
    folder = Path(path)
    try:
        if not folder.exists() and is_hub_name(path):
            return Checkpoint(label, path, path)
        if checkpoint_kind(folder) == "full":
            model_shapes(folder)  # refuses weights that are half there
            return Checkpoint(label, path, _model_hash(path))
        return _adapter(label, folder, base)
    except ConfigError as error:
        return [f"checkpoints: {label}: {error}"]


def _adapter(label: str, folder: Path, base: str | None) -> Checkpoint:
    if base is None:
        raise ConfigError(f"{folder} is a LoRA adapter; set base to the model that it was trained on")
    if Path(base).exists() or not is_hub_name(base):
        checkpoint_kind(Path(base))
    check_adapter_base(folder, base)
    rank = check_adapter(folder, base)
    digest = hashlib.sha256()
    for file in sorted(folder.glob("adapter_*")):  # not the optimizer's state beside them
        digest.update(known_sha256(file).encode())
    return Checkpoint(label, base, _model_hash(base), folder, digest.hexdigest(), rank)


def _model_hash(path: str) -> str:
    return known_sha256(Path(path)) if Path(path).exists() else path
