from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import cast

import pytest
from onebox_jobs import node_of, output, state, submit, submit_writer, wait_for, writers

from btrm.config import ConfigError
from btrm.onebox import faults
from btrm.onebox.box import ClusterError, OneBox

pytestmark = pytest.mark.slow
Start = Callable[..., OneBox]


def test_a_killed_slurmd_and_a_time_that_is_over(slurm: Start) -> None:
    # One test for the two that take longest, so that they wait together.
    box = slurm(nodes=2, gpus=2, slurmd_timeout_s=10)
    overdue = submit_writer(box, "--nodelist=n1")
    job = submit_writer(box, "--nodelist=n2", "--gpus=1")
    old = writers(box, job)
    faults.time_limit(box, overdue)
    faults.node_kill(box, "n2")
    assert box.node_states()["n2"] in {"mix", "alloc"} and writers(box, job) == old, "nobody has noticed"
    box.wait_until("DOWN", lambda: box.node_states()["n2"].startswith("down"))
    assert state(box, job) == "PENDING" and writers(box, job) == old
    box.run("scontrol", "update", f"JobId={job}", "ReqNodeList=n1")
    box.wait_until("two writers", lambda: len(writers(box, job)) == 2)
    assert node_of(box, job) == "n1"
    faults.node_back(box, "n2")
    box.wait_until("the new writer alone", lambda: len(new := writers(box, job)) == 1 and new != old)
    wait_for(box, overdue, "TIMEOUT")
    assert not writers(box, overdue)


def test_what_starts_a_job_again(slurm: Start) -> None:
    # In one cluster at the same time: each waits 6 s for its old credential to run out.
    box = slurm(nodes=4, gpus=1, kill_wait_s=1)
    cut, requeued, preempted = (submit_writer(box, "--gpus=1") for _ in range(3))
    jobs = (cut, requeued, preempted)
    nodes = {job: node_of(box, job) for job in jobs}
    first = {job: writers(box, job) for job in jobs}
    faults.node_down(box, nodes[cut])
    faults.requeue(box, requeued)
    faults.preempt(box, nodes[preempted])
    box.wait_until("the preemptor in", lambda: box.run("squeue", "-h", "-p", "high", "-t", "r", "-o", "%N") != "")
    assert starts(box, preempted) == 2 and not writers(box, preempted) & first[preempted]
    box.wait_until("a second start", lambda: bool(writers(box, requeued) - first[requeued]))
    assert not writers(box, requeued) & first[requeued]
    box.wait_until("two writers", lambda: len(writers(box, cut)) == 2)
    assert node_of(box, cut) != nodes[cut] and writers(box, cut) > first[cut]
    faults.node_back(box, nodes[cut])
    box.wait_until("the old writer's end", lambda: not writers(box, cut) & first[cut])
    assert state(box, cut) == "RUNNING"


def starts(box: OneBox, job: str) -> int:
    """Return how often a job was started, or is going to be: one that was put back waits for the next time."""
    record = box.run("scontrol", "-o", "show", "job", job)
    return 1 + int(re.findall(r" Restarts=(\d+)", record)[0])


def test_a_draining_node_takes_no_new_jobs(slurm: Start) -> None:
    box = slurm(nodes=1, gpus=2)
    running = submit_writer(box, "--gpus=1")
    faults.drain(box, "n1")
    waiting = submit(box, "true", "--gpus=1")
    time.sleep(1.5)
    assert (state(box, running), state(box, waiting)) == ("RUNNING", "PENDING")
    faults.node_back(box, "n1")
    wait_for(box, waiting, "COMPLETED")


def test_killed_tasks_fail_their_step_and_no_other(slurm: Start) -> None:
    box = slurm(nodes=1, gpus=2)
    task = f"touch {box.root}/$SLURM_JOB_ID.up; sleep 100"
    job = submit(box, f"srun bash -c '{task}'; echo code $?", "--array=0-1")
    batch = submit(box, f"{task}; echo never")
    box.wait_until("their tasks", lambda: len(list(box.root.glob("*.up"))) == 3)
    faults.task_kill(box, f"{job}_1")
    wait_for(box, f"{job}_1", "COMPLETED")
    assert "code 137" in output(box, f"{job}_1") and state(box, f"{job}_0") == "RUNNING"
    faults.task_kill(box, batch)
    wait_for(box, batch, "FAILED")
    assert not output(box, batch)


def test_a_killed_controller_comes_back_with_what_it_had_saved(slurm: Start) -> None:
    box = slurm(nodes=1, gpus=1, slurmd_timeout_s=5)
    job = submit_writer(box)
    old = writers(box, job)
    saved, started = box.root / "controller" / "job_state", time.time()
    box.run("scontrol", "update", f"JobId={job}", "Comment=save")  # a start alone is not saved
    box.wait_until("a new save", lambda: saved.exists() and saved.stat().st_mtime > started)
    faults.controller_kill(box)
    with pytest.raises(ClusterError, match="squeue"):
        state(box, job)
    with pytest.raises(ConfigError, match="does not run"):
        faults.controller_kill(box)
    faults.controller_back(box)
    with pytest.raises(ConfigError, match="runs already"):
        faults.controller_back(box)
    wait_for(box, job, "RUNNING")
    assert writers(box, job) == old


def test_what_a_fault_cannot_be_done_to_is_named(slurm: Start) -> None:
    box = slurm(nodes=1, gpus=1)
    for fault in (faults.node_kill, faults.node_down, faults.node_back, faults.drain, faults.preempt):
        with pytest.raises(ConfigError, match="'n9': no such node; valid: n1"):
            fault(box, "n9")
    for fault in (faults.task_kill, faults.requeue, faults.time_limit):
        with pytest.raises(ClusterError, match="Invalid job id"):
            fault(box, "99")
    with pytest.raises(ConfigError, match="no accounting"):
        faults.dbd_back(box)


def test_limits_on_submitting_and_a_record_that_is_away(slurm: Start) -> None:
    box = slurm(nodes=1, gpus=1, accounting=True)
    box.limit_submit(3)
    assert box.run("sacctmgr", "-nP", "show", "assoc", "format=user,maxsubmit").count("|3") == 1
    job = submit(box, "sleep 100", "--array=0-2")
    with pytest.raises(ClusterError, match="AssocMaxSubmitJobLimit"):
        submit(box, "true")
    box.limit_submit(-1)
    wait_for(box, submit(box, "true"), "COMPLETED")
    faults.dbd_kill(box)
    with pytest.raises(ClusterError, match="sacct"):
        box.run("sacct")
    faults.dbd_back(box)
    box.wait_until("the record", lambda: f"{job}_0" in box.run("sacct", "-n", "-P", "-o", "jobid"))


class _Waking:
    """A cluster whose node comes back by itself between the look at it and the order to resume it."""

    names = ("n1",)
    daemons = ("slurmd.n1",)

    def __init__(self) -> None:
        self.states = iter(["down", "down"])
        self.orders = 0

    def node_states(self) -> dict[str, str]:
        return {"n1": next(self.states, "idle")}

    def run(self, *_: str) -> str:
        self.orders += 1
        raise ClusterError("slurm_update error: Invalid node state specified")

    def wait_until(self, _: str, ready: Callable[[], bool]) -> None:
        assert any(ready() for _ in range(3))


def test_a_node_that_comes_back_by_itself_is_taken_back() -> None:
    box = _Waking()
    assert faults.node_back(cast(OneBox, box), "n1") == "n1: idle"
    assert box.orders == 1
