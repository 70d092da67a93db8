"""What the other nodes of a job do: the first of them train with node 0, the last may serve; none outlives node 0."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from btrm.leases import VARIABLE
from btrm.runs import MANIFEST
from btrm.train.job import Job, environment
from btrm.train.node import Place, Ranks, free_port, python
from btrm.train.nodes import Call, Failure, Watch, heard, place, tell
from btrm.train.rank import STOPPED
from btrm.train.servers import announce, server_environment

_POLL_S = 0.2
_SLOW_S = 2.0  # between looks at what lies on a shared file system
_HEARD_S = 30.0  # within which node 0 hears of a failure here


def follow(stage_dir: Path) -> int:
    """Run this node's processes of the stage that node 0 runs; called on every node but node 0.

    Waits for node 0 to say what. Returns 0 where node 0 has ended without anything for this node, has ended already, or
    will tell how it ended; else the code of what failed here, for Slurm to end the other nodes.
    """
    watch, node = Watch(stage_dir), int(os.environ["NODE_RANK"])
    while not _for_node(said := heard(stage_dir), node):
        if watch.lost():
            return 0 if (stage_dir / MANIFEST).exists() else 1
        time.sleep(_SLOW_S / 2)
    assert said is not None
    if said.state == "over":
        return 0
    return _follow(stage_dir, said, watch, node)


def refuse(stage_dir: Path, log: Path) -> int:
    """Tell node 0 that this node cannot take part, as its log says; return the code to end with, as `follow` does."""
    watch, node = Watch(stage_dir), int(os.environ["NODE_RANK"])
    tell(stage_dir, f"failure-{node}", Failure(node=node, code=1, log=str(log)).model_dump(mode="json"))
    while not _dismissed(stage_dir):
        if watch.lost():
            return 1
        time.sleep(_SLOW_S / 2)
    return 0


def _dismissed(stage_dir: Path) -> bool:
    return (said := heard(stage_dir)) is not None and said.state == "over"


def _for_node(said: Call | None, node: int) -> bool:
    """Say whether a node has something to do: a trainer waits while others only serve."""
    return said is not None and (said.state != "serve" or node >= said.nodes)


def _follow(stage_dir: Path, said: Call, watch: Watch, node: int) -> int:
    serves = node >= said.nodes
    job = Job(said.module, Path(said.request), said.processes, said.cpu, Path(said.log), None)
    log = job.log.with_name(f"{job.log.stem}-node{node}{job.log.suffix}")
    ranks = _serve(stage_dir, job, node, log) if serves else _train(said, job, log)
    try:
        code = _wait(said, stage_dir, ranks, watch)
    finally:
        ranks.end()
    if code is None or (code in {0, STOPPED} and not serves):
        return 0  # node 0 tells the rest: an exit code of ours would have Slurm end it before it could
    code = code or 1  # a server that ended, however well, serves no more
    tell(stage_dir, f"failure-{node}", Failure(node=node, code=code, log=str(log)).model_dump(mode="json"))
    return 0 if _node_0_heard(stage_dir) else code


def _train(said: Call, job: Job, log: Path) -> Ranks:
    env = {**environment(job, os.environ), VARIABLE: json.dumps(said.leases)}
    return Ranks(python(job.module, str(job.request)), job.processes, place(said.nodes), env, log)


def _serve(stage_dir: Path, job: Job, node: int, log: Path) -> Ranks:
    port = free_port()
    command = python(job.module, str(job.request), str(port))
    server = Ranks(command, 1, Place(), server_environment(environment(job, os.environ)), log)
    announce(stage_dir, node, port)
    return server


def _wait(said: Call, stage_dir: Path, ranks: Ranks, watch: Watch) -> int | None:
    """Return how this node's processes ended; None where node 0 ended before them. Raises Fenced, as node 0 would."""
    looked = 0.0
    while (code := ranks.poll()) is None:
        time.sleep(_POLL_S)
        if time.monotonic() - looked < _SLOW_S:
            continue
        looked = time.monotonic()
        said.check_held()
        if _over(stage_dir):
            return None
        if watch.lost():
            return 1
    return code


def _over(stage_dir: Path) -> bool:
    said = heard(stage_dir)
    return said is None or said.state == "over"


def _node_0_heard(stage_dir: Path) -> bool:
    deadline = time.monotonic() + _HEARD_S
    while time.monotonic() < deadline:
        if _over(stage_dir):
            return True
        time.sleep(_POLL_S)
    return False
