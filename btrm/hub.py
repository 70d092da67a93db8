"""The hub's cache on disk, read without the hub's own library: what compute nodes without internet can have."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WEIGHTS = ("*.safetensors", "*.bin")
_TRUE = frozenset({"1", "ON", "YES", "TRUE"})


@dataclass(frozen=True, slots=True)
class HubItem:
    """A model or a data set on the hub. `files` are the patterns that are needed of it; () is everything."""

    kind: Literal["model", "dataset"]
    name: str
    revision: str = "main"
    files: tuple[str, ...] = ()

    def __str__(self) -> str:
        at = "" if self.revision == "main" else f" at {self.revision}"
        return f"{self.kind} {self.name}{at}"


def is_hub_name(text: str) -> bool:
    """Say whether a reference has the form ORGANISATION/NAME."""
    return _NAME.fullmatch(text) is not None


def is_offline(env: Mapping[str, str]) -> bool:
    """Say whether HF_HUB_OFFLINE forbids the hub."""
    return env.get("HF_HUB_OFFLINE", "").upper() in _TRUE


def hub_home(env: Mapping[str, str]) -> Path:
    """Return the folder of all that belongs to the hub's library, with this environment: HF_HOME or its default."""
    caches = env.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expandvars(env.get("HF_HOME") or f"{caches}/huggingface")).expanduser()


def hub_cache(env: Mapping[str, str]) -> Path:
    """Return where the hub's library keeps what it has downloaded, with this environment."""
    return Path(os.path.expandvars(env.get("HF_HUB_CACHE") or f"{hub_home(env)}/hub")).expanduser()


def snapshot(item: HubItem, env: Mapping[str, str]) -> Path | None:
    """Return the folder of an item's files in the cache, or None where it is not there whole."""
    folder = hub_cache(env) / f"{item.kind}s--{item.name.replace('/', '--')}"
    ref = folder / "refs" / item.revision
    commit = ref.read_text().strip() if ref.is_file() else item.revision
    found = folder / "snapshots" / commit
    if not found.is_dir() or any((folder / "blobs").glob("*.incomplete")):
        return None
    whole = _model_is_whole(found) if item.kind == "model" else any(path.is_file() for path in found.rglob("*"))
    return found if whole else None


def _model_is_whole(folder: Path) -> bool:
    """Say whether config and weights are there, every shard that an index names included."""
    if not (folder / "config.json").is_file() or not any(any(folder.glob(pattern)) for pattern in _WEIGHTS):
        return False
    for index in folder.glob("*.index.json"):
        named = set(json.loads(index.read_text()).get("weight_map", {}).values())
        if all((folder / name).is_file() for name in named):
            return True
    return not any(folder.glob("*.index.json"))
