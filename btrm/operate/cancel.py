"""Ending a run's jobs: first it is written down that nothing more is to be sent, then the queue is told."""

from __future__ import annotations

import getpass
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from btrm.config import ConfigError, nearest
from btrm.launch.queue import QueueView, forget, look
from btrm.launch.slurm import ask
from btrm.launch.submission import Submission, submissions
from btrm.operate.status import is_complete
from btrm.publishing import write_json
from btrm.runs import StageError

_CHUNK = 200
_ROUNDS = 5
_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What was cancelled: {job id: name}."""

    jobs: dict[str, str]
    marked: tuple[str, ...]


def cancel(root: Path, steps: Collection[str] = ()) -> Cancelled:
    """Cancel a run's jobs, or those of some of its steps; a run without any is left as it is.

    Raises StageError where the queue does not answer: by then it is written down that nothing more is to be sent.
    """
    known = submissions(root)
    valid = {step.name for submission in known for step in submission.plan().steps}
    wrong = [f"step {step!r}: no such step{nearest(step, valid)}" for step in steps if step not in valid]
    if wrong or not known:
        raise ConfigError("\n".join(wrong) or f"{root}: nothing was submitted to a cluster here")
    marked = tuple(submission.name for submission in known if _mark(submission, root, steps))
    cancelled: dict[str, str] = {}
    for _ in range(_ROUNDS):  # a controller that was at work while the mark was written may have sent some more
        live = {job: name for s in known for job, name in _live(s, steps, _fresh()).items()}
        if not live.keys() - cancelled.keys():
            break
        _scancel(sorted(live.keys() - cancelled.keys()))
        cancelled |= live
        time.sleep(_PAUSE_S)
    return Cancelled(cancelled, marked)


def _mark(submission: Submission, root: Path, steps: Collection[str]) -> bool:
    """Write that a submission goes no further, where it has not ended anyway; return whether it was written now."""
    plan = submission.plan()
    if submission.stopped() is not None or not submission.sent():
        return False
    if all(is_complete(step, root) for step in plan.steps if not steps or step.name in steps):
        return False
    what = ", ".join(steps) or "all steps"
    reason = f"{what}, by {getpass.getuser()}"
    advice = f"to go on from where it was: btrm retry {root}"
    write_json(submission.stop_file, {"cause": "cancelled", "reason": reason, "advice": advice})
    return True


def _fresh() -> QueueView:
    forget()
    view = look()
    if not view.known:
        raise StageError(f"the queue cannot be asked ({view.problem}); nothing more will be sent, but jobs may run on")
    return view


def _live(submission: Submission, steps: Collection[str], view: QueueView) -> dict[str, str]:
    """Return {job id: name} of a submission's jobs that the queue holds, by name: one may not be on record."""
    mine = f"btrm-{submission.name}-"
    named = {job: next(iter(entries.values())).name for job, entries in view.jobs.items() if entries}
    keys = {job: name.removeprefix(mine) for job, name in named.items() if name.startswith(mine)}
    return {job: named[job] for job, key in keys.items() if not steps or key.partition(".")[0] in steps}


def _scancel(ids: list[str]) -> None:
    for first in range(0, len(ids), _CHUNK):
        done = ask(["scancel", *ids[first : first + _CHUNK]])
        if done.returncode and "Invalid job id" not in done.stderr:  # that one has just ended
            raise StageError(f"scancel: {done.stderr.strip()}")
