from __future__ import annotations

from pathlib import Path

import pytest

from btrm.config import ConfigError
from btrm.runs import RunPaths, fingerprint, replace, sha256_path, win, write_json


def test_a_part_is_won_once(tmp_path: Path) -> None:
    for attempt in ("a", "b"):
        (tmp_path / attempt).write_text(attempt)
    assert win(tmp_path / "a", tmp_path / "out/part")
    assert not win(tmp_path / "b", tmp_path / "out/part")
    assert (tmp_path / "out/part").read_text() == "a"


def test_a_folder_is_won_once(tmp_path: Path) -> None:
    for attempt in ("a", "b"):
        (tmp_path / attempt).mkdir()
        (tmp_path / attempt / "file").write_text(attempt)
    assert win(tmp_path / "a", tmp_path / "won")
    assert not win(tmp_path / "b", tmp_path / "won")
    assert (tmp_path / "won/file").read_text() == "a"


def test_a_read_only_directory_is_an_error_not_a_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("a")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.link", refuse)
    with pytest.raises(PermissionError):
        win(tmp_path / "a", tmp_path / "out")
    assert (tmp_path / "a").read_text() == "a"


def test_json_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"a": object()})
    assert (tmp_path / "x.json").read_text() == '{\n "a": 1\n}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_replace_publishes_in_one_rename(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    (tmp_path / "new").write_text("new")
    replace(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").read_text() == "new"


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
