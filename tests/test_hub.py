from __future__ import annotations

import json
from pathlib import Path

import pytest

from btrm.hub import HubItem, hub_cache, is_hub_name, is_offline, snapshot

MODEL = HubItem("model", "org/tiny")


def cached(home: Path, item: HubItem, files: dict[str, str]) -> Path:
    """Lay out a cache as the hub's library does."""
    folder = home / "hub" / f"{item.kind}s--{item.name.replace('/', '--')}"
    ref = folder / "refs" / item.revision
    ref.parent.mkdir(parents=True, exist_ok=True)
    ref.write_text("abc")
    for name, text in files.items():
        (folder / "snapshots/abc" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "snapshots/abc" / name).write_text(text)
    (folder / "blobs").mkdir(exist_ok=True)
    return folder


@pytest.mark.parametrize(
    ("env", "where"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HF_HOME": "/b", "XDG_CACHE_HOME": "/c"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({}, str(Path.home() / ".cache/huggingface/hub")),
    ],
)
def test_the_cache_is_where_the_hubs_library_has_it(env: dict[str, str], where: str) -> None:
    assert hub_cache(env) == Path(where)


def test_a_model_is_whole_with_config_and_all_weights(tmp_path: Path) -> None:
    env = {"HF_HOME": str(tmp_path)}
    assert snapshot(MODEL, env) is None
    folder = cached(tmp_path, MODEL, {"config.json": "{}"})
    assert snapshot(MODEL, env) is None
    cached(tmp_path, MODEL, {"model.safetensors": "w"})
    assert snapshot(MODEL, env) == folder / "snapshots/abc"
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    cached(tmp_path, MODEL, {"model.safetensors.index.json": json.dumps(index), "model-1.safetensors": "1"})
    assert snapshot(MODEL, env) is None
    cached(tmp_path, MODEL, {"model-2.safetensors": "2"})
    assert snapshot(MODEL, env) is not None
    (folder / "blobs/x.incomplete").touch()
    assert snapshot(MODEL, env) is None


def test_a_revision_is_looked_up(tmp_path: Path) -> None:
    item = HubItem("dataset", "org/data", "refs/convert/parquet")
    folder = cached(tmp_path, item, {"comparisons/train/0000.parquet": "x"})
    assert snapshot(item, {"HF_HOME": str(tmp_path)}) == folder / "snapshots/abc"
    assert snapshot(HubItem("dataset", "org/data"), {"HF_HOME": str(tmp_path)}) is None
    assert snapshot(HubItem("dataset", "org/data", "abc"), {"HF_HOME": str(tmp_path)}) is not None


def test_names_and_switches() -> None:
    assert is_hub_name("Qwen/Qwen2.5-7B-Instruct")
    assert not any(map(is_hub_name, ("@merge/model", "/a/b", "a/b/c", "model", "./x/y")))
    assert is_offline({"HF_HUB_OFFLINE": "1"}) and not is_offline({"HF_HUB_OFFLINE": "0"}) and not is_offline({})
