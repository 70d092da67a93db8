"""What was sent to a real Slurm, looked at until something is so."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from btrm.launch.submission import Submission, submissions


def newest(run: Path) -> Submission:
    return submissions(run)[-1]


def progressed(sent: Submission, element: int) -> bool:
    """Say whether an element of the teacher's array has rows that are safe."""
    last = sent.read_state("teacher", element).last
    return last is not None and last.done > 0


def wait_until(ready: Callable[[], bool], sent: Submission, timeout_s: float) -> None:
    """Wait; fail where the controller has given up, or after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        stopped = sent.stopped()
        assert stopped is None, stopped
        assert time.monotonic() < deadline
        time.sleep(0.5)
