"""What a trainer process does besides training: it ends with its parent, says how far it is, stops where all agree."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import Generator
from pathlib import Path

from btrm.leases import Fenced
from btrm.publishing import write_json
from btrm.stopping import Stopped, listen, stop_asked

# How a rank ends that stopped with its checkpoint on disk, and one that a newer attempt has replaced.
STOPPED, FENCED = 75, 76
PARENT, STOP_FILE = "BTRM_PARENT", "BTRM_STOP_FILE"
_PR_SET_PDEATHSIG = 1


@contextlib.contextmanager
def rank() -> Generator[None]:
    """Be a trainer process: SIGTERM asks to stop at the end of a step; the exit code says how the training ended.

    Our parent has blocked SIGTERM, so that none is lost before there is a handler.
    """
    die_with_parent()
    listen({signal.SIGTERM: "SIGTERM"})
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        yield
    except Stopped:
        sys.exit(STOPPED)
    except Fenced:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(FENCED)  # at once: the others of a process group may never answer again


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies, so that kill -9 of a stage leaves no trainer behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = os.environ.get(PARENT)
    if parent is not None and os.getppid() != int(parent):
        sys.exit("the stage that started this trainer is gone")  # it died before the kernel was asked


def agree_to_stop() -> bool:
    """Say whether any rank was asked to stop, by a signal or by the stage's file; called by all ranks together."""
    file = os.environ.get(STOP_FILE)
    asked = stop_asked() is not None or (file is not None and Path(file).exists())
    return _any_rank(asked)


def _any_rank(flag: bool) -> bool:
    import torch
    from torch import distributed

    if not distributed.is_initialized():
        return flag
    device = torch.device("cuda", torch.cuda.current_device()) if distributed.get_backend() == "nccl" else "cpu"
    votes = torch.tensor([int(flag)], device=device)
    distributed.all_reduce(votes, op=distributed.ReduceOp.MAX)
    return bool(votes.item())


def steps_file(directory: Path) -> Path:
    """Return where a trainer says how many steps it has done."""
    return directory / ".steps.json"


def report_step(directory: Path, step: int, of: int | None) -> None:
    """Say how many steps are done, and of how many; called by the trainer's first process."""
    write_json(steps_file(directory), {"step": step, "of": of})


def read_steps(directory: Path) -> tuple[int, int | None] | None:
    """Return (steps done, steps in all) of a stage's trainer, or None where it has told nothing yet."""
    try:
        said = json.loads(steps_file(directory).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return (said, None) if isinstance(said, int) else (said["step"], said["of"])
