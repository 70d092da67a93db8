"""How the nodes of one job speak: node 0 says in a file what the others run, and that it is over.

The file is named by the job and by how often Slurm has started it: no node takes an older attempt's for its own.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Literal

from btrm import leases
from btrm.config import Config, ConfigError
from btrm.leases import check_held
from btrm.publishing import write_json
from btrm.train.node import Place

_FOLDER = ".nodes"
ALONE_S = 60.0  # without a live claim on the stage's directory for so long, node 0 is dead
START_S = 3600.0  # until its first claim: it may have a large model to hash before
_MEETING = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")


class Call(Config):
    """What node 0 says: run these processes (those that train), serve (those that do not), or it is over.

    The first `nodes` nodes of the job train.
    """

    state: Literal["serve", "run", "over"]
    module: str = ""
    request: str = ""
    processes: int = 1
    cpu: bool = False
    nodes: int = 1
    log: str = ""
    leases: tuple[tuple[str, int], ...] = ()

    def check_held(self) -> None:
        """Raise Fenced where a newer attempt has taken node 0's place."""
        for directory, number in self.leases:
            leases.Lease(Path(directory), number).check()


class Failure(Config):
    """What another node says of its processes' end."""

    node: int
    code: int
    log: str


def attempt_key() -> str:
    """Return what is this start of this job, and no other."""
    return f"{os.environ.get('SLURM_JOB_ID', 'local')}-{os.environ.get('SLURM_RESTART_COUNT', '0')}"


def place(nodes: int) -> Place:
    """Return this node's place among several, as the launcher set it."""
    missing = [name for name in _MEETING if not os.environ.get(name)]
    if missing:
        raise ConfigError(f"nodes={nodes}: the launcher must set {', '.join(missing)} on each node")
    return Place(int(os.environ["NODE_RANK"]), nodes, os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))


def call(stage_dir: Path, said: Call) -> None:
    """Say something to the other nodes of this attempt."""
    write_json(_file(stage_dir), said.model_dump(mode="json"))


def forget_older(stage_dir: Path) -> None:
    """Remove what older attempts' nodes have said; call it with the directory held."""
    check_held()
    for old in (stage_dir / _FOLDER).glob("*.json"):
        if not old.name.startswith((f"{attempt_key()}-", f"{attempt_key()}.")):
            old.unlink(missing_ok=True)


def dismiss(stage_dir: Path) -> None:
    """Tell the other nodes that node 0 is done; safe to say at any time, more than once."""
    call(stage_dir, Call(state="over"))


def heard(stage_dir: Path) -> Call | None:
    """Return what node 0 of this attempt has said last, or None."""
    try:
        return Call.build(json.loads(_file(stage_dir).read_text()), str(_file(stage_dir)))
    except FileNotFoundError:
        return None


def tell(stage_dir: Path, what: str, said: dict[str, Any]) -> None:
    """Tell node 0 something of this node's."""
    write_json(_file(stage_dir, f"-{what}"), said)


def told(stage_dir: Path, what: str) -> Path | None:
    """Return what another node of this attempt has told, or None."""
    file = _file(stage_dir, f"-{what}")
    return file if file.exists() else None


def failure_of_another(stage_dir: Path, nodes: int) -> Failure | None:
    """Return how another of so many nodes has failed, or None."""
    for node in range(1, nodes):
        file = told(stage_dir, f"failure-{node}")
        if file is not None:
            return Failure.build(json.loads(file.read_text()), str(file))
    return None


class Watch:
    """Tells a node whether node 0 still lives: its stage's directory is claimed, and the claim renewed.

    Where node 0 dies before its first claim, srun or Slurm ends the job; the deadline is only the last resort.
    """

    def __init__(self, stage_dir: Path) -> None:
        self._dir = stage_dir
        self._alive, self._limit_s = time.monotonic(), START_S

    def lost(self) -> bool:
        """Say whether nobody has held the directory for ALONE_S."""
        if leases.live_owner(self._dir) is not None:
            self._alive, self._limit_s = time.monotonic(), ALONE_S
        return time.monotonic() - self._alive > self._limit_s


def _file(stage_dir: Path, suffix: str = "") -> Path:
    return stage_dir / _FOLDER / f"{attempt_key()}{suffix}.json"
