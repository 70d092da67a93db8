from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

from btrm import leases
from btrm.config import ConfigError
from btrm.launch import control, job, step_work
from btrm.launch.failures import classify
from btrm.launch.job import STOPPED_CODE, main
from btrm.launch.local import run_step
from btrm.launch.slurm import NoRoomError
from btrm.launch.submission import Attempt, Plan, PlannedStep, Submission, new_submission
from btrm.leases import claim
from btrm.locks import OWNER
from btrm.records import read_judgements
from btrm.runs import Resources, StageError
from btrm.stages import verify_run
from btrm.stopping import ask_to_stop, forget
from btrm.teacher.backends.rule import RuleBackend
from btrm.teacher.base import Call, Reply
from btrm.train.job import JobError
from btrm.train.nodes import dismiss, failure_of_another

CPU = Resources(cpus=1, mem_gb=1, time_min=5)
PAIRS = PlannedStep(
    name="pairs", stage="pairs", config={"n_pairs": {"train": 30, "validation": 2, "test": 2}}, resources=CPU
)


@pytest.fixture(autouse=True)
def as_job(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Each test is a job; what a job's process changes for good is put back."""
    monkeypatch.setattr(leases, "_claimed", {})
    monkeypatch.setattr(job, "_ensure_controller", lambda _: None)
    for name, value in {OWNER: "", job.JOB_IDS: "", "NODE_RANK": "0", "SLURM_JOB_ID": "7"}.items():
        monkeypatch.setenv(name, value)
    for name in ("SLURM_RESTART_COUNT", "SLURM_PROCID", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    before = {number: signal.getsignal(number) for number in (signal.SIGURG, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    forget()


def submitted(tmp_path: Path, elements: int | None = None, part_pairs: int = 4) -> Submission:
    teacher = PlannedStep(
        name="teacher",
        stage="teacher",
        config={"part_pairs": part_pairs, "concurrency": 1},
        resources=CPU,
        elements=elements,
    )
    root = tmp_path / "run"
    return new_submission(root, Plan(root=str(root), steps=(PAIRS, teacher), env={}))


def do(submission: Submission, step: str, kind: str, first: int = 0) -> int:
    return main([str(submission.directory), step, kind, str(first)])


def last(submission: Submission, step: str, element: int = 0) -> Attempt:
    found = submission.read_state(step, element).last
    assert found is not None
    return found


def element(monkeypatch: pytest.MonkeyPatch, index: int) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(index))


def test_a_plan_job_by_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submission = submitted(tmp_path, 3)
    assert do(submission, "pairs", "run") == 0
    for first, index in ((0, 1), (2, 0)):  # the third comes in an array of its own
        element(monkeypatch, index)
        assert do(submission, "teacher", "array", first) == 0
    assert do(submission, "teacher", "commit") == 1
    assert "10 rows are still missing" in last(submission, "teacher.commit").reason
    element(monkeypatch, 0)
    assert do(submission, "teacher", "array") == 0
    assert do(submission, "teacher", "commit") == 0
    assert [last(submission, "teacher", n).done for n in range(3)] == [10, 10, 10]
    assert verify_run(tmp_path / "run") == []
    assert read_judgements(tmp_path / "run/teacher/judgements.parquet").num_rows == 60
    assert do(submission, "teacher", "array") == 0  # once more, as by a late requeue: nothing is left
    assert list((submission.directory / "requeue").iterdir()) == []


def test_a_lone_element_stops_and_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submission = submitted(tmp_path)
    assert do(submission, "pairs", "run") == 0
    safe_point, calls = step_work.safe_point, iter(range(100))
    ask = RuleBackend.ask

    async def slowly(self: RuleBackend, call: Call) -> Reply:
        await asyncio.sleep(0.05)
        return await ask(self, call)

    monkeypatch.setattr(RuleBackend, "ask", slowly)

    def warned() -> None:
        if next(calls) == 2:
            ask_to_stop("timeout")
        safe_point()

    monkeypatch.setattr(step_work, "safe_point", warned)
    assert do(submission, "teacher", "run") == STOPPED_CODE
    assert (last(submission, "teacher").outcome, last(submission, "teacher").cause) == ("stopped", "timeout")
    done = last(submission, "teacher").done
    assert 0 < done < 30 and submission.requeue_mark("7.0").exists()
    monkeypatch.setattr(step_work, "safe_point", safe_point)
    monkeypatch.setattr(RuleBackend, "ask", ask)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    forget()
    assert do(submission, "teacher", "run") == 0
    assert last(submission, "teacher").at_start == done and verify_run(tmp_path / "run") == []


@pytest.mark.parametrize(
    ("error", "cause", "mark"),
    [
        (ConfigError("n_pairs: wrong"), "bad_request", False),
        (RuntimeError("broken"), "error", False),
        (RuntimeError("NCCL error in: x"), "nccl", False),
        (RuntimeError("CUDA out of memory. Tried"), "cuda_out_of_memory", True),
        (SystemExit(3), "error", False),
    ],
)
def test_a_failure_is_named_and_only_some_come_back_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, cause: str, mark: bool
) -> None:
    submission = submitted(tmp_path)

    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(step_work, "run_step", broken)
    assert do(submission, "pairs", "run") == 1
    assert (last(submission, "pairs").outcome, last(submission, "pairs").cause) == ("failed", cause)
    assert str(error) in last(submission, "pairs").reason
    assert submission.requeue_mark("7.0").exists() == mark


def test_whoever_is_replaced_ends_quietly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another submission's job takes the directory over in the middle of the work."""
    submission = submitted(tmp_path)

    def replaced(step: PlannedStep, root: Path, *_: object) -> None:
        with another_process(monkeypatch):
            claim(root / step.name, "job 8", wait_s=0)
        run_step(step, root)

    monkeypatch.setattr(leases, "_claimed", {tmp_path / "run/pairs": 0})
    monkeypatch.setattr(step_work, "run_step", replaced)
    assert do(submission, "pairs", "run") == 1
    assert last(submission, "pairs").cause == "fenced" and not (tmp_path / "run/pairs/manifest.json").exists()


@contextlib.contextmanager
def another_process(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    with monkeypatch.context() as context:
        context.setattr(leases, "_claimed", {})
        yield


@pytest.mark.parametrize("error", [StageError("squeue does not answer"), NoRoomError("full"), OSError(28, "full")])
def test_a_controller_that_cannot_look_now_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    submission = submitted(tmp_path)

    def cannot(_: Submission) -> None:
        raise error

    monkeypatch.setattr(control, "advance", cannot)
    monkeypatch.setattr(job, "_FULL_S", 0.0)
    assert do(submission, "control", "control") == STOPPED_CODE
    assert submission.stopped() is None


def test_a_controller_that_never_can_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submission = submitted(tmp_path)

    def cannot(_: Submission) -> None:
        raise ConfigError("no such account")

    monkeypatch.setattr(control, "advance", cannot)
    assert do(submission, "control", "control") == 0
    stopped = submission.stopped()
    assert stopped is not None and "no such account" in stopped["reason"]


def test_a_users_own_file_must_be_what_it_was_when_submitted(tmp_path: Path) -> None:
    step = PAIRS.model_copy(update={"code": {"/home/me/reward.py:mine": "0123"}})
    submission = new_submission(tmp_path / "run", Plan(root=str(tmp_path / "run"), steps=(step,), env={}))
    assert do(submission, "pairs", "run") == 1
    assert last(submission, "pairs").cause == "bad_request"
    assert "changed since this was submitted" in last(submission, "pairs").reason


def test_code_that_is_not_the_copy_does_nothing_and_is_not_tried_again(tmp_path: Path) -> None:
    root = tmp_path / "run"
    plan = Plan(root=str(root), steps=(PAIRS,), env={}, code=f"{root}/.code/0", code_digest="0" * 16)
    submission = new_submission(root, plan)
    assert do(submission, "pairs", "run") == 1
    failed = last(submission, "pairs")
    assert failed.cause == "bad_request" and "is not the copy that was submitted" in failed.reason
    assert not (root / "pairs").exists() and not submission.requeue_mark("7.0").exists()


def test_another_nodes_code_that_is_not_the_copy_is_the_jobs_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "run"
    plan = Plan(root=str(root), steps=(PAIRS,), env={}, code=f"{root}/.code/0", code_digest="0" * 16)
    submission = new_submission(root, plan)
    monkeypatch.setenv("SLURM_PROCID", "1")
    dismiss(root / "pairs")  # as node 0 does once it has heard
    assert do(submission, "pairs", "run") == 0
    told = failure_of_another(root / "pairs", 2)
    assert told is not None and told.node == 1 and told.log == str(submission.logs / "7_1_log.out")
    submission.logs.mkdir()
    Path(told.log).write_text(capsys.readouterr().err)
    failed = JobError("btrm.train.sft", told.code, root / "none.log", [Path(told.log)])
    failure = classify("", failed.code, None, failed)
    assert (failure.name, failure.action) == ("image_unfit", "stop") and "is not the copy" in str(failed)
