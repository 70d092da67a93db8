from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from run_support import attempt, state, submit

from btrm.cli import main
from btrm.launch.submission import Attempt
from btrm.operate.ledger import USEFUL, Entry, ledger, split

HOUR = 3600.0


def made(number: int = 1, **values: object) -> Attempt:
    """An attempt of one hour from time 0."""
    return attempt(number, **{"job": "2", "started": 0.0, "seen": HOUR, "ended": HOUR, **values})


@pytest.mark.parametrize(
    ("one", "following", "useful", "wasted"),
    [
        (made(outcome="done", done=9), None, 1.0, 0.0),
        (made(outcome="running", ended=None, seen=HOUR / 2), None, 0.5, 0.0),
        (made(outcome="stopped", done=6), made(2, at_start=6), 1.0, 0.0),
        (made(outcome="stopped", done=6), made(2, at_start=3), 0.5, 0.5),
        (made(outcome="failed", progressed=HOUR / 4, done=5), None, 0.25, 0.75),
        # a trainer had done 10 steps in 3/4 of an hour and its last checkpoint was at 5
        (made(outcome="lost", progressed=HOUR * 3 / 4, done=10), made(2, at_start=5), 0.375, 0.625),
        (made(outcome="failed", at_start=4, done=4), made(2, at_start=4), 0.0, 1.0),
        (made(outcome="failed"), None, 0.0, 1.0),
        (made(outcome="lost", at_start=-1, progressed=HOUR, done=4), made(2, at_start=-1), 1.0, 0.0),
    ],
)
def test_an_attempts_hour(one: Attempt, following: Attempt | None, useful: float, wasted: float) -> None:
    assert split(one, following) == pytest.approx((useful * HOUR, wasted * HOUR))


def entry(entries: list[Entry], step: str, what: str) -> Entry:
    return next(found for found in entries if (found.step, found.what) == (step, what))


def test_hours_by_step_and_cause(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    submission = submit(tmp_path)
    lost = made(outcome="lost", cause="preempted", progressed=HOUR / 2, done=5)
    state(submission, "grpo", 0, lost, made(2, at_start=5, outcome="done", done=9))  # 2 nodes x 4 GPUs
    for element in range(3):
        state(submission, "judge", element, made(job=f"3_{element}", outcome="done", done=1))
    state(submission, "judge", 3, made(job="3_3", outcome="failed", cause="nccl"))
    state(submission, "judge.commit", 0, made(job="4", outcome="done"))
    state(submission, "pairs", 0, made(job="1", outcome="done"))
    entries = ledger([tmp_path])
    assert entry(entries, "grpo", USEFUL).gpu_hours == pytest.approx(12)
    assert entry(entries, "grpo", "preempted").gpu_hours == pytest.approx(4)
    assert entry(entries, "grpo", "preempted").node_hours == pytest.approx(1)
    assert entry(entries, "grpo", USEFUL).attempts == 2
    assert entry(entries, "judge", USEFUL).gpu_hours == pytest.approx(3)
    assert entry(entries, "judge", "nccl").gpu_hours == pytest.approx(1)
    assert entry(entries, "judge", USEFUL).cpu_hours == pytest.approx(1)  # the commit has no GPU
    assert entry(entries, "pairs", USEFUL).cpu_hours == pytest.approx(2)
    assert entry(entries, "pairs", USEFUL).gpu_hours == 0
    assert main(["ledger", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "preempted 4.00 GPU-h" in out and "nccl 1.00 GPU-h" in out
    assert next(line for line in out.splitlines() if line.startswith("all")).split()[1:3] == ["20.00", "25.0%"]
    assert main(["ledger", str(tmp_path), "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert sum(float(row["gpu_hours"]) for row in rows) == pytest.approx(20)


def test_a_run_that_spent_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    submit(tmp_path)
    assert main(["ledger", str(tmp_path)]) == 0
    assert "nothing spent" in capsys.readouterr().out
