"""Whether a trainer may still leave checkpoints: by its manifest, its queue, or who holds its directory."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from btrm.leases import live_owner
from btrm.operate.status import run_status
from btrm.runs import REQUEST, read_manifest


@dataclass(frozen=True, slots=True)
class TrainerState:
    """How a trainer stands. `ended` is not complete, and nobody is at work on it; `why` tells what is known."""

    state: Literal["waiting", "training", "complete", "ended"]
    why: str = ""


def trainer_state(root: Path, name: str) -> TrainerState:
    """Return how a trainer of a run stands."""
    directory = root / name
    if read_manifest(directory) is not None:
        return TrainerState("complete")
    if _held(directory):
        return TrainerState("training")
    if not root.is_dir():
        return TrainerState("waiting")
    status = run_status(root)
    step = next((step for step in status.steps if step.step == name), None)
    if step is None or (not (directory / REQUEST).exists() and step.state in {"waiting", "queued"}):
        return TrainerState("waiting")
    if step.state in {"waiting", "queued", "running"} or (status.controller and status.stopped is None):
        return TrainerState("training")
    why = ", ".join(filter(None, [step.state, step.cause, step.reason]))
    return TrainerState("ended", why or "it was stopped, or killed")


def _held(directory: Path) -> bool:
    """Say whether a process works in a directory: by a job's lease, or by the kernel's lock, which is left alone.

    Of a lock on another machine nothing can be known: who wrote its name into the file is taken to live.
    """
    if live_owner(directory) is not None:
        return True
    try:
        inode, holder = (directory / ".lock").stat().st_ino, (directory / ".lock").read_text().strip()
    except FileNotFoundError:
        return False
    if holder.startswith("pid ") and not holder.endswith(f" on {socket.gethostname()}"):
        return True
    locks = Path("/proc/locks")  # the device stands there too, but overlays give another one than stat
    return locks.exists() and any(word.endswith(f":{inode}") for word in locks.read_text().split())
