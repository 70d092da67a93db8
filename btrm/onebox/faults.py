"""What goes wrong on clusters, on request: for rehearsals by hand (`btrm cluster fail`) and for seeded saboteurs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from btrm.config import ConfigError
from btrm.onebox.box import ClusterError, OneBox
from btrm.onebox.processes import end, step_tasks

_REASON = "reason=btrm_cluster_fail"


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, what it is done to (NODE, [NODE], JOB or nothing), and what to tell about it."""

    inflict: Callable[[OneBox, str], str]
    target: str
    summary: str


def node_kill(box: OneBox, node: str) -> str:
    """Kill -9 a node's slurmd: its tasks run on, and after the timeout the node is DOWN and its jobs are requeued."""
    box.kill_node(_node(box, node))
    return f"{node}: slurmd is dead, its tasks run on; Slurm notices after {box.slurmd_timeout_s} s or more"


def node_down(box: OneBox, node: str) -> str:
    """Cut a node off: its slurmd is dead and it is declared DOWN. Its jobs are requeued at once, the old tasks run on.

    `scontrol update state=down` alone would end the tasks, and the living slurmd would bring the node back at once.
    """
    if f"slurmd.{_node(box, node)}" in box.daemons:
        box.kill_node(node)
    _update_node(box, node, "state=down", _REASON)
    return f"{node}: DOWN; its jobs are requeued while their old tasks run on"


def node_back(box: OneBox, node: str) -> str:
    """Start a node's slurmd where it is dead, take back DOWN or DRAIN, and wait until the node can run jobs."""
    if f"slurmd.{_node(box, node)}" not in box.daemons:
        box.start_node(node)
    box.wait_until(f"{node} answers", lambda: not box.node_states()[node].endswith(("*", "unk")))
    box.wait_until(f"{node} can run jobs", lambda: _is_resumed(box, node))
    return f"{node}: {box.node_states()[node]}"


def drain(box: OneBox, node: str) -> str:
    """Drain a node: its jobs go on, no new ones start there."""
    _update_node(box, node, "state=drain", _REASON)
    return f"{node}: drains; btrm cluster fail node-back {node} takes it back"


def preempt(box: OneBox, node: str = "") -> str:
    """Submit a job to the partition `high` that needs a whole node (any, or this one) for 10 s."""
    place = ["--nodelist", _node(box, node)] if node else []
    gpus = [f"--gpus-per-node={box.gpus}"] if box.gpus else []
    options = [
        "--partition=high",
        "--nodes=1",
        "--exclusive",
        "--job-name=preemptor",
        "--output=/dev/null",
        *place,
        *gpus,
    ]
    job = box.run("sbatch", "--parsable", *options, "--wrap=sleep 10")
    return f"job {job}: wants {node or 'a whole node'}, in the partition high"


def task_kill(box: OneBox, job: str) -> str:
    """Kill -9 the tasks of a running job (`12`, `12_3`), not its slurmstepd: what the kernel's OOM killer does."""
    numbers = _job_numbers(box, job)
    tasks = [task for number in numbers for task in step_tasks(box.conf, number)]
    if not tasks:
        raise ConfigError(f"job {job}: no task of it runs here")
    end(tasks)
    return f"job {job}: killed {len(tasks)} processes"


def controller_kill(box: OneBox, _: str = "") -> str:
    """Kill -9 slurmctld: it forgets what it did since it last saved.

    A job submitted in the last seconds is lost; one that runs but is remembered as pending starts anew, or fails.
    """
    box.kill_controller()
    return "slurmctld is dead: no job starts, squeue and sbatch fail"


def controller_back(box: OneBox, _: str = "") -> str:
    """Start slurmctld again with the jobs that it had saved; slurmdbd first, without which it does not start."""
    if box.accounting and "slurmdbd" not in box.daemons:
        box.start_accounting()
    _start_where_dead(box, "slurmctld", box.start_controller)
    return "slurmctld is back"


def dbd_kill(box: OneBox, _: str = "") -> str:
    """Kill -9 slurmdbd: sacct fails, and the record lags once it is back."""
    box.kill("slurmdbd")
    return "slurmdbd is dead: sacct fails, jobs run on"


def dbd_back(box: OneBox, _: str = "") -> str:
    """Start slurmdbd again."""
    if not box.accounting:
        raise ConfigError("this cluster has no accounting; btrm cluster up --accounting")
    _start_where_dead(box, "slurmdbd", box.start_accounting)
    return "slurmdbd is back"


def requeue(box: OneBox, job: str) -> str:
    """Requeue a running job, as an administrator would."""
    box.run("scontrol", "requeue", job)
    return f"job {job}: requeued"


def time_limit(box: OneBox, job: str) -> str:
    """Let a running job's time be over now; slurmctld looks every 30 s and then ends it as TIMEOUT."""
    box.run("scontrol", "update", f"JobId={job}", "EndTime=now")
    return f"job {job}: its time is over; slurmctld, which looks every 30 s, will end it"


FAULTS = {
    "node-kill": Fault(node_kill, "NODE", "kill -9 its slurmd; the tasks run on, Slurm notices later"),
    "node-down": Fault(node_down, "NODE", "the same and DOWN: its jobs are requeued at once, the tasks run on"),
    "node-back": Fault(node_back, "NODE", "start its slurmd, take back DOWN or DRAIN"),
    "drain": Fault(drain, "NODE", "its jobs go on, no new ones start"),
    "preempt": Fault(preempt, "[NODE]", "a job of the partition high takes a whole node for 10 s"),
    "task-kill": Fault(task_kill, "JOB", "kill -9 the tasks of 12 or 12_3, not the stepd"),
    "requeue": Fault(requeue, "JOB", "as an administrator would"),
    "time-limit": Fault(time_limit, "JOB", "its time is over now (ended within 30 s)"),
    "controller-kill": Fault(controller_kill, "", "kill -9 slurmctld"),
    "controller-back": Fault(controller_back, "", "start it with the jobs that it had saved"),
    "dbd-kill": Fault(dbd_kill, "", "kill -9 slurmdbd"),
    "dbd-back": Fault(dbd_back, "", "start it again"),
}


def _node(box: OneBox, node: str) -> str:
    if node not in box.names:
        raise ConfigError(f"node {node!r}: no such node; valid: {', '.join(box.names)}")
    return node


def _update_node(box: OneBox, node: str, *changes: str) -> None:
    box.run("scontrol", "update", f"NodeName={_node(box, node)}", *changes)


def _is_resumed(box: OneBox, node: str) -> bool:
    """Take back DOWN or DRAIN, and say whether the node can run jobs by now."""
    if box.node_states()[node].startswith(("down", "drain", "drng")):
        with contextlib.suppress(ClusterError):  # it came back by itself between the look and the order
            _update_node(box, node, "state=resume")
    return _is_usable(box, node)


def _is_usable(box: OneBox, node: str) -> bool:
    return box.node_states()[node] in {"idle", "mix", "alloc", "comp", "plnd"}


def _job_numbers(box: OneBox, job: str) -> list[str]:
    """Return Slurm's own numbers of a job's running elements: those in slurmstepd's titles."""
    return box.run("squeue", "-h", "-t", "running", "-j", job, "-o", "%A").split()


def _start_where_dead(box: OneBox, name: str, start: Callable[[], None]) -> None:
    if name in box.daemons:
        raise ConfigError(f"{name}: runs already")
    start()
