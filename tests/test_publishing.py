from __future__ import annotations

import os
from pathlib import Path

import pytest
from judged_run import begin_trainer

from btrm.publishing import read_json, replace, win, write_json
from btrm.runs import read_request


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


def lost_answer(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Have a call do its work, then fail as where its answer was lost and it was tried again."""
    real = getattr(os, name)

    def done_and_lost(source: Path, target: Path) -> None:
        real(source, target)
        raise FileExistsError(17, "File exists") if name == "link" else FileNotFoundError(2, "No such file")

    monkeypatch.setattr(os, name, done_and_lost)


def test_a_link_whose_answer_was_lost_has_won(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("a")
    lost_answer(monkeypatch, "link")
    assert win(tmp_path / "a", tmp_path / "part")
    assert not (tmp_path / "a").exists() and (tmp_path / "part").stat().st_nlink == 1


def test_a_folders_rename_whose_answer_was_lost_has_won(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    lost_answer(monkeypatch, "rename")
    assert win(tmp_path / "a", tmp_path / "won")


def test_what_has_lost_is_gone_so_that_nobody_writes_into_the_winner(tmp_path: Path) -> None:
    scratch, part = tmp_path / "scratch", tmp_path / "part"
    part.write_text("first")
    scratch.write_text("second")
    assert not win(scratch, part) and not scratch.exists()
    scratch.write_text("third")
    assert part.read_text() == "first"


def test_what_is_removed_under_the_look_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that is extended takes its manifest away while others look how it stands."""
    begin_trainer(tmp_path)
    directory = tmp_path / "run/grpo"
    assert read_json(directory / "stage.json" / "x") is None
    stat = Path.stat

    def removed_after(looked_at: Path, **options: bool) -> os.stat_result:
        found = stat(looked_at, **options)
        if looked_at.name == "stage.json":
            looked_at.unlink()
        return found

    monkeypatch.setattr(Path, "stat", removed_after)
    assert read_request(directory) is not None, "it is not looked for first"
    assert (directory / "stage.json").exists() and read_request(directory) is None
