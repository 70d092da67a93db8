"""Trainer processes on one node and on two: started, asked to stop, failed, replaced, left alone; with stand-ins."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from trainer_support import FOLLOW, HERE

from btrm import stopping
from btrm.leases import Fenced, claim, holding
from btrm.publishing import write_json
from btrm.runs import Resources
from btrm.stopping import Stopped
from btrm.train import launch
from btrm.train.launch import Job, JobError, dismiss, run_job
from btrm.train.node import free_port
from btrm.train.rank import read_steps

ENDS_S = 120  # within which another node ends, on a busy machine
Follower = Callable[..., subprocess.Popen[bytes]]
SHORT = "from btrm.train import nodes; nodes.ALONE_S = nodes.START_S = 1.0; "


@pytest.fixture(autouse=True)
def one_job(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """A job of Slurm's that nobody has asked to stop."""
    values = {
        "PYTHONPATH": str(HERE),
        "SLURM_JOB_ID": "7",
        "SLURM_RESTART_COUNT": "1",
        "NODE_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(launch, "_SLOW_S", 0.2)
    stopping.forget()
    yield
    stopping.forget()


@pytest.fixture
def follower(tmp_path: Path) -> Generator[Follower]:
    """Start the second node."""
    started: list[subprocess.Popen[bytes]] = []

    def start(code: str = FOLLOW, **env: str) -> subprocess.Popen[bytes]:
        told = {**os.environ, "NODE_RANK": "1", **env}
        child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=told)
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.wait()


def job_of(directory: Path, steps: int, processes: int = 2, done: int = 0, **told: Any) -> Job:
    request = directory / "trainer.json"
    write_json(request, {"steps": steps, **told})
    return Job("stand_in_rank", request, processes, True, directory / "logs" / "trainer.log", steps, done)


def ask_after(directory: Path, step: int) -> None:
    """Ask to stop in the background, once so many steps are done."""

    def wait() -> None:
        while (read_steps(directory) or (0, None))[0] < step:
            time.sleep(0.01)
        stopping.ask_to_stop("preempted")

    threading.Thread(target=wait, daemon=True).start()


def environments(directory: Path) -> list[dict[str, str]]:
    return [json.loads(path.read_text()) for path in sorted(directory.glob("env-*.json"))]


def test_ranks_of_two_nodes_find_each_other(tmp_path: Path, follower: Follower) -> None:
    write_json(tmp_path / ".nodes" / "7-0.json", {"state": "over"})
    second = follower()
    with holding(claim(tmp_path, "job 7")):
        run_job(job_of(tmp_path, 20), Resources(nodes=2))
    assert [path.name for path in (tmp_path / ".nodes").iterdir()] == ["7-1.json"]
    assert second.wait(ENDS_S) == 0
    told = environments(tmp_path)
    assert [(e["RANK"], e["NODE_RANK"], e["LOCAL_RANK"]) for e in told] == [
        ("0", "0", "0"),
        ("1", "0", "1"),
        ("2", "1", "0"),
        ("3", "1", "1"),
    ]
    assert {(e["WORLD_SIZE"], e["LOCAL_WORLD_SIZE"], e["MASTER_PORT"]) for e in told} == {
        ("4", "2", os.environ["MASTER_PORT"])
    }
    assert read_steps(tmp_path) == (20, 20)


def test_one_process_is_told_of_no_others(tmp_path: Path) -> None:
    run_job(job_of(tmp_path, 1, processes=1), Resources())
    assert [e["RANK"] for e in environments(tmp_path)] == [None]


def test_all_die_when_one_dies_and_the_log_that_tells_why_is_shown(tmp_path: Path, follower: Follower) -> None:
    second = follower()
    with (
        holding(claim(tmp_path, "job 7")),
        pytest.raises(JobError, match=r"ended with 3; .*trainer-node1\.log") as error,
    ):
        run_job(job_of(tmp_path, 10_000, at={"3": {"step": 2, "do": "fail"}}), Resources(nodes=2))
    assert "CUDA out of memory" in str(error.value) and error.value.code == 3
    assert second.wait(ENDS_S) == 0, "node 0 tells; an exit code here would have Slurm end it before it could"


def test_where_both_nodes_fail_both_are_shown(
    tmp_path: Path, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "_OTHERS_S", 120.0)
    second = follower()
    at = {"0": {"step": 20, "do": "fail"}, "3": {"step": 1, "do": "fail", "after": "0"}}
    message = r"trainer\.log ends in:\n.*CUDA out.*\n?.*trainer-node1\.log ends in:\n.*CUDA out"
    with holding(claim(tmp_path, "job 7")), pytest.raises(JobError, match=message):
        run_job(job_of(tmp_path, 10_000, at=at), Resources(nodes=2))
    assert second.wait(ENDS_S) == 0


def test_the_others_end_when_node_0_fails(tmp_path: Path, follower: Follower, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_OTHERS_S", 0.2)
    second = follower()
    at = {"0": {"step": 30, "do": "fail"}, "2": {"step": 1, "do": "hang"}, "3": {"step": 1, "do": "hang"}}
    with holding(claim(tmp_path, "job 7")), pytest.raises(JobError, match=r"logs/trainer\.log"):
        run_job(job_of(tmp_path, 10_000, at=at), Resources(nodes=2))
    assert second.wait(ENDS_S) == 0


def test_no_node_waits_for_one_that_is_dead(follower: Follower) -> None:
    assert follower(SHORT + FOLLOW).wait(ENDS_S) == 1


def test_an_older_attempts_word_is_not_for_this_one(tmp_path: Path, follower: Follower) -> None:
    dismiss(tmp_path)
    assert follower().wait(ENDS_S) == 0, "node 0 had nothing to train"
    assert follower(SHORT + FOLLOW, SLURM_RESTART_COUNT="2").wait(ENDS_S) == 1


def test_a_node_of_a_replaced_attempt_ends(tmp_path: Path, follower: Follower) -> None:
    second = follower()
    started = threading.Event()

    def replace_it() -> None:
        while len(environments(tmp_path)) < 4:
            time.sleep(0.05)
        claim(tmp_path, "job 7")
        started.set()

    with holding(claim(tmp_path, "job 7")):
        threading.Thread(target=replace_it, daemon=True).start()
        with pytest.raises(Fenced):
            run_job(job_of(tmp_path, 10_000), Resources(nodes=2))
    assert started.is_set() and second.wait(ENDS_S) == 1


def test_a_request_reaches_the_ranks_and_is_told(tmp_path: Path) -> None:
    ask_after(tmp_path, 3)
    with pytest.raises(Stopped, match="preempted"):
        run_job(job_of(tmp_path, 10_000), Resources())
    steps = {int(path.read_text()) for path in tmp_path.glob("stopped-*")}
    assert len(list(tmp_path.glob("stopped-*"))) == 2 and max(steps) < 1000


@pytest.mark.parametrize("done", [0, 5])
def test_before_the_first_step_nothing_is_waited_for(done: int, tmp_path: Path) -> None:
    stopping.ask_to_stop("preempted")
    with pytest.raises(Stopped, match="preempted"):
        run_job(job_of(tmp_path, 10_000, done=done, start_s=60), Resources())
    assert read_steps(tmp_path) == (done, 10_000)
    assert not list(tmp_path.glob("stopped-*"))


def test_slurms_own_signal_to_the_ranks_is_the_same_request(tmp_path: Path) -> None:
    """Slurm may signal every process of a step, at any moment, also while a rank is still being started."""

    def signal_all() -> None:
        while len(ranks_of(tmp_path)) < 2:
            time.sleep(0.001)
        for pid in ranks_of(tmp_path):
            os.kill(pid, signal.SIGURG)
            os.kill(pid, signal.SIGTERM)

    threading.Thread(target=signal_all, daemon=True).start()
    with pytest.raises(Stopped, match="the trainer was asked to stop"):
        run_job(job_of(tmp_path, 10_000), Resources())
    assert {path.read_text() for path in tmp_path.glob("stopped-*")} == {"1"}


def ranks_of(directory: Path) -> list[int]:
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"stand_in_rank" in words and str(directory / "trainer.json").encode() in words:
            found.append(int(path.parent.name))
    return found


def test_a_rank_that_was_replaced_ends_the_stage_as_replaced(tmp_path: Path) -> None:
    with pytest.raises(Fenced):
        run_job(job_of(tmp_path, 100, at={"1": {"step": 2, "do": "fence"}}), Resources())


def test_no_rank_outlives_its_job(tmp_path: Path) -> None:
    with pytest.raises(JobError):
        run_job(job_of(tmp_path, 100, at={"0": {"step": 1, "do": "hang"}, "1": {"step": 3, "do": "fail"}}), Resources())
    assert ranks_of(tmp_path) == []
