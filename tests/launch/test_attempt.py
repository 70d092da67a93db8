from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from btrm import leases
from btrm.launch import attempt as module
from btrm.launch.attempt import NoProgressError, Running, attempt, consecutive, hopeless
from btrm.launch.submission import Attempt, ElementState, Plan, Submission, new_submission
from btrm.leases import Fenced, claim, holding
from btrm.stopping import Stopped, forget, safe_point


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    monkeypatch.setattr(leases, "_claimed", {})
    before = {number: signal.getsignal(number) for number in (signal.SIGURG, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    forget()


@pytest.fixture
def submission(tmp_path: Path) -> Submission:
    return new_submission(tmp_path, Plan(root=str(tmp_path), steps=(), env={}))


def past(**values: Any) -> Attempt:
    usual = {"number": 1, "job": "1", "restarts": 0, "host": "n1", "pid": 1, "gpus": 0, "started": 1.0, "seen": 2.0}
    return Attempt.model_validate({**usual, "outcome": "failed", "cause": "error", **values})


def as_job(monkeypatch: pytest.MonkeyPatch, job: str, restarts: int = 0) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", job)
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n1")


def begin(submission: Submission, at_start: int = 0) -> Any:
    return attempt(submission, "judge", 3, 2, at_start)


def causes(submission: Submission) -> list[tuple[str, str]]:
    return [(one.outcome, one.cause) for one in submission.read_state("judge", 3).attempts]


@pytest.mark.parametrize(
    ("attempts", "at_start", "halvings", "stops"),
    [
        ([], 0, 0, False),
        ([past()], 0, 0, False),
        ([past(), past()], 0, 0, True),
        ([past(), past()], 5, 0, False),  # the last one has gained something
        ([past(), past(at_start=5)], 5, 0, False),
        ([past(), past(at_start=5), past(at_start=5)], 5, 0, True),
        ([past(), past(outcome="done", cause=""), past()], 0, 0, False),
        ([past(cause="node_failure", outcome="lost")] * 19, 0, 0, False),
        ([past(cause="node_failure", outcome="lost")] * 20, 0, 0, True),
        ([past(), past(cause="preempted", outcome="stopped"), past()], 0, 0, True),
        ([past(cause="killed", outcome="lost"), past()], 0, 0, False),
        ([past(cause="never heard of")] * 2, 0, 0, True),
        ([past(cause="cuda_out_of_memory")] * 2, 0, 0, True),
        ([past(cause="cuda_out_of_memory")] * 7, 0, 6, False),
        ([past(cause="cuda_out_of_memory")] * 8, 0, 6, True),
        ([past(cause="cuda_out_of_memory"), past(), past()], 0, 6, True),
        ([past(cause="timeout", outcome="stopped")] * 2, 0, 0, True),
    ],
)
def test_two_of_its_own_without_progress_are_enough(
    attempts: list[Attempt], at_start: int, halvings: int, stops: bool
) -> None:
    assert (hopeless(attempts, at_start, halvings) is not None) == stops


def test_the_reason_of_the_last_one_is_told(submission: Submission, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, job in enumerate(("7", "8"), 1):
        as_job(monkeypatch, job)
        with begin(submission) as running:
            running.end("failed", "error", f"attempt {number} broke")
    as_job(monkeypatch, "9")
    with pytest.raises(NoProgressError, match=r"2 attempts without progress.*attempt 2 broke"), begin(submission):
        raise AssertionError("must not begin")
    assert causes(submission) == [("failed", "error"), ("failed", "error"), ("failed", "no_progress")]
    assert submission.requeue_mark("8.0").exists() and not submission.requeue_mark("9.0").exists()


def test_an_attempt_leaves_its_state_and_a_mark(submission: Submission, monkeypatch: pytest.MonkeyPatch) -> None:
    as_job(monkeypatch, "7")
    monkeypatch.setattr(module, "_WRITE_S", 0.0)
    with begin(submission, 4) as running:
        assert submission.requeue_mark("7.0").exists()
        last = submission.read_state("judge", 3).last
        assert last is not None and (last.outcome, last.done, last.gpus, last.job) == ("running", 4, 2, "7")
        running.progress(9, 20)
        last = submission.read_state("judge", 3).last
        assert last is not None and (last.done, last.total) == (9, 20) and last.progressed is not None
        running.no_requeue()
        running.end("done")
    assert causes(submission) == [("done", "")] and not submission.requeue_mark("7.0").exists()


@pytest.mark.parametrize(
    ("job", "restarts", "mark", "cause"),
    [
        ("8", 0, True, "cancelled"),  # another job has its work
        ("7", 1, True, "node_failure"),  # its batch script did not live to take the mark away
        ("7", 1, False, "killed"),  # its batch script put it back
    ],
)
def test_an_attempt_that_ended_without_a_word_is_closed_by_the_next(
    submission: Submission, monkeypatch: pytest.MonkeyPatch, job: str, restarts: int, mark: bool, cause: str
) -> None:
    as_job(monkeypatch, "7")
    with begin(submission):
        pass  # as by kill -9
    if not mark:
        submission.requeue_mark("7.0").unlink()
    as_job(monkeypatch, job, restarts)
    with begin(submission):
        attempts = submission.read_state("judge", 3).attempts
    assert [(one.number, one.outcome, one.cause) for one in attempts] == [(1, "lost", cause), (2, "running", "")]
    assert attempts[0].ended == attempts[0].seen


def test_an_orphan_cannot_put_the_job_back_into_the_queue(
    submission: Submission, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_job(monkeypatch, "7")
    with begin(submission):
        assert submission.requeue_mark("7.0").exists()
        as_job(monkeypatch, "7", 1)
        with begin(submission):
            assert not submission.requeue_mark("7.0").exists() and submission.requeue_mark("7.1").exists()


def test_an_orphan_s_state_gives_way_to_the_newer_attempt(
    submission: Submission, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_job(monkeypatch, "7")
    with begin(submission) as orphan:
        as_job(monkeypatch, "7", 1)
        with begin(submission) as newer:
            with pytest.raises(Fenced, match="attempt 2 runs as job 7"):
                orphan.write()
            orphan.fenced(Fenced("newer"))  # says nothing more, and does not fail
            newer.end("done")
    assert causes(submission) == [("lost", "node_failure"), ("done", "")]


def test_a_clobbered_state_is_written_again(submission: Submission, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between an orphan's look and its write the newer attempt may begin: its next write is whole again."""
    as_job(monkeypatch, "7")
    with begin(submission) as orphan:
        as_job(monkeypatch, "7", 1)
        with begin(submission) as newer:
            submission.write_state(ElementState(step="judge", element=3, attempts=(orphan.now,)))
            newer.write()
    assert [one.number for one in submission.read_state("judge", 3).attempts] == [1, 2]


def test_whoever_is_fenced_can_still_say_so(submission: Submission, monkeypatch: pytest.MonkeyPatch) -> None:
    as_job(monkeypatch, "7")
    lease = claim(submission.directory.parent / "stage", "job 7")
    with holding(lease), begin(submission) as running:
        monkeypatch.setattr(leases, "_claimed", {})
        claim(lease.directory, "job 8", wait_s=0)
        running.fenced(Fenced("claimed by job 8"))
    assert causes(submission) == [("failed", "fenced")] and not submission.requeue_mark("7.0").exists()


@pytest.mark.parametrize(("number", "reason"), [(signal.SIGURG, "timeout"), (signal.SIGTERM, "preempted")])
def test_slurm_s_signals_ask_to_stop(
    submission: Submission, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, reason: str
) -> None:
    """The mark stays: srun's SIGTERM after another node died brings the job back, Slurm's own ends its script too."""
    as_job(monkeypatch, "7")
    with begin(submission):
        os.kill(os.getpid(), number)
        with pytest.raises(Stopped, match=reason):
            safe_point()
    assert submission.requeue_mark("7.0").exists()


def test_progress_and_heartbeat_lose_no_end(submission: Submission, monkeypatch: pytest.MonkeyPatch) -> None:
    as_job(monkeypatch, "7")
    monkeypatch.setattr(module, "RENEW_S", 0.001)
    monkeypatch.setattr(module, "_STATE_S", 0.0)
    monkeypatch.setattr(module, "_WRITE_S", 0.0)
    for _ in range(40):
        with begin(submission) as running:
            running.progress(running.now.done + 1)
            running.end("done")
    time.sleep(0.05)
    assert set(causes(submission)) == {("done", "")} and len(causes(submission)) == 40


ORPHAN = """
import sys, time
from pathlib import Path
from btrm.launch import attempt as module
from btrm.launch.submission import Submission
module.RENEW_S = module._STATE_S = 0.05
with module.attempt(Submission(Path(sys.argv[1])), "judge", 3, 0, 0):
    print("began", flush=True)
    time.sleep(300)
"""


def test_the_heartbeat_ends_a_process_that_was_replaced(
    submission: Submission, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_job(monkeypatch, "7")
    command = [sys.executable, "-c", ORPHAN, str(submission.directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as orphan:
        assert orphan.stdout is not None and orphan.stderr is not None
        assert orphan.stdout.readline() == "began\n"
        as_job(monkeypatch, "7", 1)
        with begin(submission) as running:
            assert orphan.wait(120) == 1
            assert "btrm: judge.3: attempt 2 runs as job 7" in orphan.stderr.read()
            running.end("done")
    assert [cause for _, cause in causes(submission)][1:] == [""]


def test_a_full_disk_for_a_moment_does_not_end_the_heartbeat(
    submission: Submission, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_job(monkeypatch, "7")
    monkeypatch.setattr(module, "RENEW_S", 0.01)
    monkeypatch.setattr(module, "_STATE_S", 0.0)
    write, failures = Running.write, [OSError(28, "No space left on device")] * 3

    def sometimes(running: Running) -> None:
        if failures and running.written:
            raise failures.pop()
        write(running)

    monkeypatch.setattr(Running, "write", sometimes)
    with begin(submission) as running:
        first = running.now.seen
        deadline = time.monotonic() + 60
        while (failures or running.now.seen == first) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert not failures and running.now.seen > first


def test_consecutive_counts_from_the_end() -> None:
    attempts = [past(cause="nccl"), past(cause="error"), past(cause="nccl"), past(cause="nccl")]
    assert (consecutive(attempts, "nccl"), consecutive(attempts, "error"), consecutive([], "error")) == (2, 0, 0)
