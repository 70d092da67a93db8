"""`judge` and `eval` as they are typed: names for checkpoints, one command to the table, and watching a trainer."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from judged_run import SkilledEngine, add_checkpoint, begin_trainer, complete_trainer, drop_checkpoint, make_run

from btrm.cli import main as btrm
from btrm.judges import grid
from btrm.locks import exclusive
from btrm.runs import read_manifest, read_request, verify
from btrm.submit import main


@pytest.fixture(autouse=True)
def skilled_engine() -> Generator[None]:
    before = dict(grid.ENGINES)
    SkilledEngine.asked = []
    grid.ENGINES["transformers"] = "judged_run:open_skilled"
    yield
    grid.ENGINES.update(before)


@pytest.fixture
def run(tmp_path: Path) -> list[str]:
    """A run with pairs, and a trainer that is not complete."""
    flags = make_run(tmp_path)
    assert main(["pairs", *flags]) == 0
    return flags


@pytest.fixture
def trained(run: list[str], tmp_path: Path) -> list[str]:
    """The same with two checkpoints and a complete trainer."""
    for step in (5, 10):
        add_checkpoint(tmp_path, step)
    complete_trainer(tmp_path)
    return run


def judged(tmp_path: Path) -> list[str]:
    manifest = read_manifest(tmp_path / "run/judge")
    assert manifest is not None
    return sorted(manifest.results["checkpoints"])


def test_eval_ends_with_the_table_and_the_best(
    trained: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--bt-temp", "10", "--unc-low", "30", "--unc-high", "70", "--report-margins", "--unparsed", "wrong"]
    assert main(["eval", *trained, *words, "--baseline", "base", "--checkpoints", "base,checkpoint-*"]) == 0
    text = capsys.readouterr().out
    assert "best: checkpoint-10: 1.000" in text and "optimistic" in text and "checkpoint-5" in text
    assert judged(tmp_path) == ["base", "checkpoint-10", "checkpoint-5"] and verify(tmp_path / "run") == []
    request = read_request(tmp_path / "run/evaluate")
    assert request is not None and request.config["bt_temp"] == 10 and request.config["unparsed"] == "wrong"
    SkilledEngine.asked.clear()
    assert main(["eval", *trained, *words, "--baseline", "base"]) == 0 and SkilledEngine.asked == []


@pytest.mark.parametrize(
    ("named", "labels"),
    [
        ("checkpoint-*", ["checkpoint-5", "checkpoint-10"]),
        ("base,checkpoint-10", ["base", "checkpoint-10"]),
        ("checkpoint-1*,base", ["checkpoint-10", "base"]),
        ("first=@grpo/checkpoints/checkpoint-5", ["first"]),
        ("grpo", ["checkpoint-5", "checkpoint-10"]),
        ("{folder}/model,mine={folder}/run/grpo/checkpoints/checkpoint-5", ["model", "mine"]),
        ("{folder}/run/grpo/checkpoints/checkpoint-*", ["checkpoint-5", "checkpoint-10"]),
    ],
)
def test_checkpoints_are_named_as_they_are_thought_of(
    trained: list[str], tmp_path: Path, named: str, labels: list[str]
) -> None:
    assert main(["judge", *trained, "--checkpoints", named.format(folder=tmp_path)]) == 0
    assert judged(tmp_path) == sorted(labels)


def test_all_that_is_no_checkpoint_is_told_with_what_there_is(
    trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["judge", *trained, "--checkpoints", "checkpoint-7,sfft,/nowhere/at/all"]) == 2
    text = capsys.readouterr().err
    assert "--checkpoints checkpoint-7: no such checkpoint" in text and "--checkpoints sfft" in text
    assert "checkpoint-5, checkpoint-10" in text and "by name: base, grpo" in text and "no such folder" in text


def test_best_goes_with_judge_too(trained: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["judge", *trained, "--best", "--checkpoints", "checkpoint-*"]) == 0
    assert "best: checkpoint-10" in capsys.readouterr().out
    assert btrm(["best", trained[-1]]) == 0 and "checkpoint-10: 1.000" in capsys.readouterr().out
    assert btrm(["best", "nowhere"]) == 2 and "no summary" in capsys.readouterr().err


def test_a_judge_before_its_trainer_is_complete_is_refused(
    run: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_checkpoint(tmp_path, 5)
    assert main(["judge", *run, "--checkpoints", "checkpoint-*"]) == 2
    assert "grpo is not complete" in capsys.readouterr().err


def watched(flags: list[str], *words: str) -> tuple[threading.Thread, list[int]]:
    """Watch in a thread; the status is in the list when it has ended."""
    status: list[int] = []
    thread = threading.Thread(target=lambda: status.append(main(["eval", *flags, "--watch", "0.1", *words])))
    thread.start()
    return thread, status


def wait_for(tmp_path: Path, labels: list[str]) -> None:
    deadline = time.monotonic() + 120
    while True:
        manifest = read_manifest(tmp_path / "run/judge")
        if manifest is not None and sorted(manifest.results["checkpoints"]) == sorted(labels):
            return
        assert time.monotonic() < deadline, manifest and manifest.results["checkpoints"]
        time.sleep(0.05)


@pytest.mark.slow
def test_watch_follows_a_trainer_to_its_end(
    run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("btrm.submit.listening", no_signals)
    add_checkpoint(tmp_path, 5)
    add_checkpoint(tmp_path, 7, whole=False)
    with exclusive(tmp_path / "run/grpo"):
        thread, status = watched(run)
        wait_for(tmp_path, ["base", "checkpoint-5"])
        add_checkpoint(tmp_path, 10)
        add_checkpoint(tmp_path, 20)
        wait_for(tmp_path, ["base", "checkpoint-5", "checkpoint-10", "checkpoint-20"])
        drop_checkpoint(tmp_path, 5)
        drop_checkpoint(tmp_path, 7)
        add_checkpoint(tmp_path, 30)
        wait_for(tmp_path, ["base", "checkpoint-10", "checkpoint-20", "checkpoint-30"])
        complete_trainer(tmp_path)
    thread.join(120)
    assert status == [0]
    assert "checkpoint-5: judged, and deleted since" in caplog.text
    asked = list(SkilledEngine.asked)
    assert main(["eval", *run, "--checkpoints", "base,checkpoint-*"]) == 0
    assert SkilledEngine.asked == asked  # a plain run finds everything
    per_checkpoint = {name: sum(n for found, n in asked if found == name) for name, _ in asked}
    assert set(per_checkpoint.values()) == {12 * 2 * 2}  # each once


@pytest.mark.slow
def test_watch_says_when_the_trainer_has_died(
    run: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("btrm.operate.watch._LOOK_S", 0.01)
    monkeypatch.setattr("btrm.submit.listening", no_signals)
    add_checkpoint(tmp_path, 10)
    begin_trainer(tmp_path)
    thread, status = watched(run)
    thread.join(120)
    assert status == [1] and "nobody is at work on it" in caplog.text
    assert judged(tmp_path) == ["base", "checkpoint-10"]


def no_signals(_: object) -> threading.Lock:
    """Stand in for the signals' handlers, which only the main thread may set."""
    return threading.Lock()
