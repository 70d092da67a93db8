from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path

import pytest
from run_support import FakeQueue, attempt, complete, queue_line, state, submit, written

from btrm.cli import main
from btrm.config import ConfigError
from btrm.launch.submission import SentJob, Submission
from btrm.onebox.box import OneBox
from btrm.operate.cancel import cancel
from btrm.operate.retry import retry_failed
from btrm.operate.status import run_status
from btrm.publishing import write_json
from btrm.runs import StageError, read_manifest

QUEUE = (
    queue_line("2", "grpo", "RUNNING"),
    queue_line("3_1", "judge.0", "RUNNING"),
    queue_line("3_[2-3]", "judge.0"),
    queue_line("4", "judge.commit"),
    queue_line("6", "control"),
    "5|PENDING||1:00|N/A|btrm-20250101T000000-ffff-evaluate|Priority",  # another run's: ids were counted anew
    queue_line("99", "evaluate"),  # taken by sbatch, but submit was killed before it was on record
)


def test_all_of_a_runs_jobs_are_cancelled_once_and_none_other(tmp_path: Path, queue: FakeQueue) -> None:
    submission = submit(tmp_path)
    queue.hold(*QUEUE)
    done = cancel(tmp_path)
    assert queue.cancelled == ["2", "3", "4", "6", "99"] == sorted(done.jobs)
    stopped = submission.stopped()
    assert stopped is not None and stopped["cause"] == "cancelled" and "btrm retry" in stopped["advice"]
    again = cancel(tmp_path)
    assert not again.jobs and not again.marked and len(queue.cancelled) == 5


def test_a_group_that_shares_a_run_can_write_what_cancel_writes(tmp_path: Path, queue: FakeQueue) -> None:
    submission = submit(tmp_path)
    shared = submission.plan().model_dump(mode="json") | {"site": {**submission.plan().site, "umask": "007"}}
    write_json(submission.plan_file, shared)
    queue.hold(*QUEUE)
    before = os.umask(0o077)
    try:
        assert main(["cancel", str(tmp_path)]) == 0
    finally:
        os.umask(before)
    assert submission.stop_file.stat().st_mode & 0o777 == 0o660


def test_some_steps_only(tmp_path: Path, queue: FakeQueue) -> None:
    submission = submit(tmp_path)
    queue.hold(*QUEUE)
    assert sorted(cancel(tmp_path, ["judge"]).jobs) == ["3", "4"]
    assert submission.stopped() is not None  # else the controller would send them again
    with pytest.raises(ConfigError, match="did you mean judge"):
        cancel(tmp_path, ["judgee"])


def test_the_mark_is_written_before_the_queue_is_asked(tmp_path: Path, queue: FakeQueue) -> None:
    submission = submit(tmp_path)
    queue.fail()
    with pytest.raises(StageError, match="nothing more will be sent, but jobs may run on"):
        cancel(tmp_path)
    assert submission.stopped() is not None
    assert main(["cancel", str(tmp_path)]) == 1


def test_a_complete_run_is_left_as_it_is(tmp_path: Path, queue: FakeQueue, capsys: pytest.CaptureFixture[str]) -> None:
    submission = submit(tmp_path)
    for step in ("grpo", "judge", "evaluate"):
        complete(tmp_path, step)
    assert main(["cancel", str(tmp_path)]) == 0
    assert submission.stopped() is None and not queue.cancelled
    assert "holds no job" in capsys.readouterr().out


def test_why_a_run_stopped_is_not_overwritten(tmp_path: Path, queue: FakeQueue) -> None:
    submission = submit(tmp_path)
    submission.stop_file.write_text('{"cause": "no_progress", "reason": "r", "advice": "a"}')
    queue.hold(*QUEUE)
    assert cancel(tmp_path).jobs and written(submission.stop_file)["cause"] == "no_progress"


def test_retry_failed_sends_failed_steps_only(
    tmp_path: Path, queue: FakeQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    submission = submit(tmp_path)
    asked: list[tuple[bool, Collection[str] | None]] = []

    def resend(_: Submission, *, reset: bool, only: Collection[str] | None = None) -> list[SentJob]:
        asked.append((reset, only))
        return [SentJob(key="judge.0", step="judge", kind="array", job_id="12", count=1)]

    monkeypatch.setattr("btrm.operate.retry.resend", resend)
    assert retry_failed(tmp_path) == [] and asked == []
    state(submission, "judge", 1, attempt(job="3_1", outcome="failed", cause="nccl"))
    state(submission, "grpo", 0, attempt(job="2", outcome="done"))
    assert [job.job_id for job in retry_failed(tmp_path)] == ["12"] and asked == [(True, {"judge"})]
    assert main(["retry", str(tmp_path)]) == 0 and asked[-1] == (True, None)
    with pytest.raises(ConfigError, match="nothing was submitted"):
        retry_failed(queue.folder)


@pytest.mark.slow
def test_cancel_and_retry_on_a_real_cluster(
    slurm: Callable[..., OneBox], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    box = slurm(nodes=1)
    words = ["pairs", "--experiment", "toy.demo", "--run", "r", "--site", "onebox"]
    words += ["--n-pairs", "train=5,validation=5,test=5"]
    hold = box.run("sbatch", "--parsable", "--exclusive", "--output=/dev/null", "--wrap=sleep 900")
    submitted = [sys.executable, "-m", "btrm.submit", *words]
    subprocess.run(submitted, env=os.environ | box.env, check=True, timeout=240)
    pairs = run_status(tmp_path / "r").steps[0]
    assert pairs.state in {"queued", "running"}
    assert main(["cancel", "r"]) == 0
    mine = "squeue", "-h", "-o", "%j"
    box.wait_until("the queue is empty but for one", lambda: box.run(*mine) == "wrap")
    assert run_status(tmp_path / "r").steps[0].state == "cancelled"
    assert main(["cancel", "r"]) == 0
    assert main(["retry", "r"]) == 0
    assert "pairs" in box.run(*mine)
    box.run("scancel", hold)
    box.wait_until("the run is complete", lambda: read_manifest(tmp_path / "r" / "pairs") is not None)
    done = run_status(tmp_path / "r")
    assert done.finished and done.steps[0].attempts == 1
    capsys.readouterr()
    assert main(["logs", "r"]) == 0
    assert "pairs.0 on " in capsys.readouterr().out
    assert main(["ledger", "r"]) == 0
    assert "pairs" in capsys.readouterr().out
