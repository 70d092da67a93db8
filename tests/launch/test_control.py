from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from btrm.config import ConfigError
from btrm.launch import control
from btrm.launch.control import advance, give_up, missing_elements, resend, unfinished
from btrm.launch.jobs import Job
from btrm.launch.limits import ClusterLimits
from btrm.launch.local import run_step
from btrm.launch.partitions import read_partitions
from btrm.launch.sbatch import Request
from btrm.launch.site import Site
from btrm.launch.submission import Attempt, ElementState, Plan, PlannedStep, SentJob, Submission, new_submission
from btrm.runs import Resources
from btrm.work import Unit, write_units

SITE = Site(name="tried", executor="slurm", partition="low", backoff_s=60)
CPU = Resources(cpus=1, mem_gb=1, time_min=5)
TEACHER = PlannedStep(name="teacher", stage="teacher", config={}, resources=CPU, elements=4)
PAIRS = PlannedStep(
    name="pairs", stage="pairs", config={"n_pairs": {"train": 8, "validation": 2, "test": 2}}, resources=CPU
)


class Cluster:
    """Stands in for Slurm: what is alive, and what was sent with which request."""

    def __init__(self) -> None:
        self.alive: dict[str, str] = {}
        self.sent: list[Job] = []
        self.requests: list[Request] = []
        self.controllers: list[list[str]] = []
        self.nodes = 4
        self.members = ""

    def limits(self, _: Site) -> ClusterLimits:
        text = f"PartitionName=low Default=YES State=UP TotalNodes={self.nodes}"
        found = read_partitions(f"{text}\nPartitionName=other State=UP TotalNodes=2", self.members)
        return ClusterLimits(max_array=10, max_jobs=1000, max_submit=None, queued=0, partitions=found)

    def live_jobs(self, submission: Submission, _tries: int = 1) -> dict[str, str]:
        return {f"btrm-{submission.name}-{key}": job_id for key, job_id in self.alive.items()}

    def send(self, jobs: list[Job], request: Request, *_: object) -> list[SentJob]:
        self.sent += jobs
        self.requests.append(request)
        return [SentJob(key=job.key, step=job.step, kind=job.kind, job_id="9") for job in jobs]

    def send_control(self, _: Request, after: list[str]) -> None:
        self.controllers.append(after)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    for name in ("live_jobs", "send", "send_control"):
        monkeypatch.setattr(control, name, getattr(made, name))
    monkeypatch.setattr(control, "ask_cluster", made.limits)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return made


@pytest.fixture
def submission(tmp_path: Path) -> Submission:
    return new_submission(tmp_path / "run", a_plan(tmp_path))


def a_plan(tmp_path: Path, **more: Any) -> Plan:
    return Plan(root=str(tmp_path / "run"), steps=(PAIRS, TEACHER), env={}, site=SITE.model_dump(mode="json"), **more)


def past(**values: Any) -> Attempt:
    now = time.time()
    usual = {"number": 1, "job": "1", "restarts": 0, "host": "n1", "pid": 1, "gpus": 0, "started": now, "seen": now}
    return Attempt.model_validate({**usual, "outcome": "failed", "cause": "error", **values})


def wrote(submission: Submission, step: str, element: int, *attempts: Attempt) -> None:
    submission.write_state(ElementState(step=step, element=element, attempts=attempts))


def cause(submission: Submission) -> str | None:
    stopped = submission.stopped()
    return stopped["cause"] if stopped else None


def test_what_is_left_is_sent(cluster: Cluster, submission: Submission) -> None:
    advance(submission)
    assert [job.key for job in cluster.sent] == ["pairs", "teacher.0", "teacher.commit"]
    assert cause(submission) is None


def test_only_elements_that_have_not_done_their_share_are_sent(cluster: Cluster, submission: Submission) -> None:
    wrote(submission, "teacher", 0, past(outcome="done", cause=""))
    wrote(submission, "teacher", 2, past(), past(outcome="done", cause=""))
    wrote(submission, "teacher", 3, past(cause="nccl"))
    assert missing_elements(submission, TEACHER, submission.states()) == {0, 1, 2, 3}  # nothing was ever cut
    write_units(submission.split("teacher"), [Unit("part", ((0, 8),))])
    assert missing_elements(submission, TEACHER, submission.states()) == {1, 3}
    advance(submission)
    assert [job.array for job in cluster.sent] == ["", "1,3", ""]
    assert missing_elements(submission, PAIRS, []) == set()


def test_jobs_under_way_are_watched_and_not_sent_twice(cluster: Cluster, submission: Submission) -> None:
    cluster.alive = {"pairs": "7", "teacher.0": "8"}
    advance(submission)
    assert cluster.sent == [] and cluster.controllers == [["7", "8"]]
    assert [job.key for job in resend(submission)] == ["teacher.commit"]
    cluster.alive = {"pairs": "7", "control": "9"}
    advance(submission)
    assert len(cluster.controllers) == 1  # another one is going to look


def test_a_complete_plan_is_let_be(cluster: Cluster, tmp_path: Path) -> None:
    assert run_step(PAIRS, tmp_path / "run") is not None
    made = new_submission(tmp_path / "run", a_plan(tmp_path).model_copy(update={"steps": (PAIRS,)}))
    assert unfinished(made.plan()) == [] and resend(made) == []
    advance(made)
    assert cluster.sent == [] and cause(made) is None
    more = PAIRS.model_copy(update={"config": {"n_pairs": {"train": 9, "validation": 2, "test": 2}}})
    assert unfinished(made.plan().model_copy(update={"steps": (more,)})) == [more]


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ([past(cause="bad_request", reason="n_pairs: wrong")], "bad_request"),
        ([past(cause="offline_hub")], "offline_hub"),
        ([past(cause="no_progress")], "no_progress"),
        ([past(), past()], "no_progress"),  # a third would wait in the queue for nothing
        ([past(), past(done=4)], None),
        ([past()], None),
        ([past(cause="node_failure", outcome="lost")], None),
        ([past(cause="fenced", reason="claimed by job 8")], "fenced"),
        ([past(cause="bad_request"), past(outcome="done", cause="")], None),
        ([past(cause="bad_request", at_start=-1)], None),  # forgotten by a retry
        ([past(cause="unheard of")], None),
    ],
)
def test_it_stops_where_another_attempt_makes_no_sense(
    cluster: Cluster, submission: Submission, attempts: list[Attempt], expected: str | None
) -> None:
    wrote(submission, "teacher", 1, *attempts)
    advance(submission)
    assert cause(submission) == expected and bool(cluster.sent) == (expected is None)
    stopped = submission.stopped()
    if stopped is not None:
        assert "teacher.1, job 1 on n1" in stopped["reason"] and stopped["advice"]
        assert attempts[-1].reason in stopped["reason"]


def test_what_was_stopped_stays_so_until_a_person_sends_it_again(cluster: Cluster, submission: Submission) -> None:
    wrote(submission, "teacher", 1, past(cause="bad_request"))
    advance(submission)
    advance(submission)
    assert cluster.sent == [] and cause(submission) == "bad_request"
    resend(submission, reset=True)
    assert cluster.sent and cause(submission) is None
    cluster.sent.clear()
    advance(submission)  # the element has not begun again, as where the queue was short
    assert cluster.sent and cause(submission) is None


def test_a_failed_commit_counts_for_its_step(cluster: Cluster, submission: Submission) -> None:
    wrote(submission, "teacher.commit", 0, past(cause="bad_request"))
    advance(submission)
    assert cause(submission) == "bad_request" and cluster.sent == []


def test_rounds_without_any_progress_come_to_an_end(cluster: Cluster, submission: Submission) -> None:
    """Jobs that never begin leave no state; neither does what dies before it can write one."""
    rounds = 0
    while cause(submission) is None:
        advance(submission)
        rounds += 1
        assert rounds < 10
    assert cause(submission) == "no_progress" and len(cluster.requests) == 3
    resend(submission, reset=True)
    for done in range(6):
        wrote(submission, "teacher", 1, past(cause="killed", outcome="lost", done=done))
        advance(submission)
    assert cause(submission) is None


def test_a_job_waited_for_that_failed_starts_nothing(cluster: Cluster, tmp_path: Path) -> None:
    made = new_submission(tmp_path / "run", a_plan(tmp_path, after="41"))
    advance(made)
    stopped = made.stopped()
    assert cluster.sent == [] and stopped is not None and "41" in stopped["reason"]
    resend(made, reset=True)
    assert cluster.requests[-1].dependencies == ""


def test_the_pause_doubles_with_each_failure_in_a_row(cluster: Cluster, submission: Submission) -> None:
    waits: list[int] = []
    for times in range(1, 9):
        wrote(submission, "teacher", 1, *(past(cause="quota", done=n, at_start=n - 1) for n in range(1, times + 1)))
        advance(submission)
        waits.append(cluster.requests[-1].begin_s)
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600]
    wrote(submission, "teacher", 1, past(cause="node_failure", outcome="lost"))
    resend(submission)
    assert cluster.requests[-1].begin_s == 0


def test_a_bad_node_is_left_out_while_others_remain(
    cluster: Cluster, submission: Submission, monkeypatch: pytest.MonkeyPatch
) -> None:
    def excluded() -> str:
        resend(submission)
        return cluster.requests[-1].exclude

    wrote(submission, "teacher", 0, past(cause="cuda_error", host="n3"))
    wrote(submission, "teacher", 1, past(cause="cuda_error", host="n2"))
    wrote(submission, "teacher", 2, past(cause="cuda_error", host="n[1-2]"))
    wrote(submission, "teacher", 3, past(cause="error", host="n1"))
    assert excluded() == "n2,n3"
    cluster.nodes = 2
    assert excluded() == ""
    cluster.nodes = 4
    states = {"n1": "DOWN*+DRAIN", "n2": "IDLE", "n3": "IDLE", "n4": "IDLE*"}
    cluster.members = "\n".join(f"NodeName={name} State={states[name]} Partitions=low" for name in states)
    assert excluded() == ""  # nothing else is up
    cluster.members += "\nNodeName=n5 State=IDLE+CLOUD+POWERED_DOWN Partitions=low"
    assert excluded() == "n2,n3"
    late = time.time() + 7200
    monkeypatch.setattr(time, "time", lambda: late)
    assert excluded() == ""


def test_an_error_of_its_own_stops_it_with_the_reason(submission: Submission) -> None:
    give_up(submission, ConfigError("the site has changed"))
    stopped = submission.stopped()
    assert stopped is not None and stopped["cause"] == "bad_request" and "the site has changed" in stopped["reason"]


def test_it_gives_way_to_a_newer_submission_of_the_same_work(cluster: Cluster, submission: Submission) -> None:
    """A node came back with an old job, or a controller that waited long: two must not send against each other."""
    root = Path(submission.plan().root)
    time.sleep(0.002)
    newer = new_submission(root, submission.plan())
    advance(newer)
    assert cluster.sent and cause(newer) is None
    newer.record(SentJob(key="pairs", step="pairs", kind="run", job_id="9"))
    cluster.sent.clear()
    advance(submission)
    assert cluster.sent == [] and cause(submission) == "fenced" and cause(newer) is None
    advance(newer)
    assert cluster.sent
