from __future__ import annotations

from pathlib import Path

from btrm.config import ConfigError
from btrm.runs import RunPaths, fingerprint, sha256_path


def test_a_folders_hash_sees_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a").write_text("1")
    first = sha256_path(tmp_path / "d")
    (tmp_path / "d/a").rename(tmp_path / "d/b")
    assert sha256_path(tmp_path / "d") != first


def test_fingerprints_do_not_depend_on_key_order() -> None:
    assert fingerprint("s", {"a": 1, "b": 2}, {}) == fingerprint("s", {"b": 2, "a": 1}, {})
    assert fingerprint("s", {"a": 1}, {"x": "1"}) != fingerprint("s", {"a": 1}, {"x": "2"})


def test_references_resolve_inside_the_run(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    assert paths.resolve("@pairs/train.rows.jsonl") == tmp_path / "pairs/train.rows.jsonl"
    assert paths.resolve("@summarize") == tmp_path / "summarize"
    assert paths.resolve("Qwen/Qwen2.5-7B-Instruct") is None
    assert paths.resolve(str(tmp_path)) == tmp_path
    assert ConfigError.__mro__[1] is ValueError
