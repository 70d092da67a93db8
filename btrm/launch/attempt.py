"""One start of one element of a step: its state on disk while it lives, and whether another start makes sense."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from btrm.launch.failures import FAILURES, Failure
from btrm.launch.last_words import last_words
from btrm.launch.submission import Attempt, ElementState, Outcome, Submission
from btrm.leases import RENEW_S, Fenced, held
from btrm.stopping import listen

_STATE_S = 30.0  # how often a living attempt says so
_WRITE_S = 3.0  # progress is written at most this often
# Ends from outside say nothing about the job; so many in a row without any progress are still enough.
_MAX_OWN, _MAX_OUTSIDE = 2, 20
MAX_HALVINGS = 6  # of a batch, where its stage can do that
TIME_LIMIT, TERMINATED = "timeout", "preempted"


@dataclass(slots=True)
class Running:
    """The attempt that this process is, with its state on disk."""

    submission: Submission
    step: str
    element: int
    now: Attempt
    before: tuple[Attempt, ...]
    mark: Path
    written: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def progress(self, done: int, total: int | None = None) -> None:
        """Say how far the work is: pairs or steps that are safe on disk."""
        with self.lock:
            if (done, total) == (self.now.done, self.now.total):
                return
            self.now = self.now.model_copy(update={"done": done, "total": total, "progressed": time.time()})
        if time.monotonic() - self.written > _WRITE_S:
            self.write()

    def write(self) -> None:
        """Write the state; raise Fenced where a newer attempt has begun."""
        with self.lock:
            last = self.submission.read_state(self.step, self.element).last
            if last is not None and (last.number > self.now.number or not _same(last, self.now)):
                raise Fenced(f"{self.step}.{self.element}: attempt {last.number} runs as job {last.job}")
            self.now = self.now.model_copy(update={"seen": time.time()})
            attempts = (*self.before, self.now)
            self.submission.write_state(ElementState(step=self.step, element=self.element, attempts=attempts))
            self.written = time.monotonic()

    def end(self, outcome: Outcome, cause: str = "", reason: str = "") -> None:
        """Write how the attempt ended. What is to run again at once keeps its mark for the batch script."""
        update = {"outcome": outcome, "cause": cause, "reason": reason, "ended": time.time()}
        with self.lock:
            self.now = self.now.model_copy(update=update)
        self.write()

    def fenced(self, error: Fenced) -> None:
        """Give the work up to the newer attempt: no requeue, and a state that says why, where it is still ours."""
        self.no_requeue()
        with contextlib.suppress(Fenced, OSError):
            self.end("failed", "fenced", str(error))

    def no_requeue(self) -> None:
        """Take the mark away: the batch script outside will let the job end."""
        self.mark.unlink(missing_ok=True)


class NoProgressError(RuntimeError):
    """The attempts before this one have gained nothing; another would not either."""


@contextlib.contextmanager
def attempt(
    submission: Submission, step: str, element: int, gpus: int, at_start: int, halvings: int = 0
) -> Generator[Running]:
    """Begin an attempt, keep its state and its leases alive, and listen to Slurm's signals.

    `at_start` is the progress that is on disk now. Raises NoProgressError instead of yielding where it is the same as
    at the start of the last attempts, and those failed on their own account (see `hopeless`).
    """
    running = _begin(submission, step, element, gpus, at_start)
    running.write()
    if (failure := hopeless(running.before, at_start, halvings)) is not None:
        running.end("failed", failure.name, failure.advice)
        raise NoProgressError(failure.advice)
    running.mark.parent.mkdir(exist_ok=True)
    running.mark.touch()
    listen({signal.SIGURG: TIME_LIMIT, signal.SIGTERM: TERMINATED})
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(running, ended, _die), daemon=True)
    beat.start()
    try:
        yield running
    finally:
        ended.set()
        beat.join(5.0)  # it must not write, or end this process, after all is done


def _same(last: Attempt, mine: Attempt) -> bool:
    """Say whether a state's newest attempt may be mine: two jobs that begin at once may take the same number."""
    return last.number < mine.number or (last.job, last.host, last.pid) == (mine.job, mine.host, mine.pid)


def job_name() -> str:
    """Return this job's name among Slurm's: 123 or, for an array's element, 123_4."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", f"pid {os.getpid()}")


def _begin(submission: Submission, step: str, element: int, gpus: int, at_start: int) -> Running:
    slurm_id, restarts = os.environ.get("SLURM_JOB_ID", "0"), int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    before = submission.read_state(step, element).attempts
    if before and before[-1].outcome == "running":
        log = submission.logs / f"{before[-1].job}_0_log.out"
        told = last_words(log, f"{step.removesuffix('.commit')}.{element} on ")
        before = (*before[:-1], _closed(before[-1], submission, slurm_id, restarts, told))
    for count in range(restarts):  # an orphan on a lost node must not put this job back into the queue
        submission.requeue_mark(f"{slurm_id}.{count}").unlink(missing_ok=True)
    now = Attempt(
        number=before[-1].number + 1 if before else 1,
        job=job_name(),
        restarts=restarts,
        host=os.environ.get("SLURM_JOB_NODELIST") or socket.gethostname(),
        pid=os.getpid(),
        gpus=gpus,
        started=time.time(),
        seen=time.time(),
        at_start=at_start,
        done=at_start,
    )
    return Running(submission, step, element, now, before, submission.requeue_mark(f"{slurm_id}.{restarts}"))


def _closed(last: Attempt, submission: Submission, slurm_id: str, restarts: int, told: str | None) -> Attempt:
    """Return an attempt that ended without a word of its own: Slurm may have told why in its log.

    Else its batch script outlived it, or went down with it.
    """
    if told is not None:
        cause = told
    elif last.job != job_name():
        cause = "cancelled"  # or its node was lost for good: another job has its work now
    elif submission.requeue_mark(f"{slurm_id}.{restarts - 1}").exists():
        cause = "node_failure"
    else:
        cause = "killed"
    return last.model_copy(update={"outcome": "lost", "cause": cause, "ended": last.seen})


def hopeless(attempts: Sequence[Attempt], at_start: int, halvings: int = 0) -> Failure | None:
    """Return why nothing is to be hoped of another attempt that would start from here; None where it may run.

    Two that failed on their own account from this very place are enough; where half the batch may help, as many more
    as it can be halved.
    """
    idle = list(takewhile(lambda past: past.at_start == at_start and past.outcome != "done", reversed(attempts)))
    own = [past for past in idle if past.cause not in FAILURES or FAILURES[past.cause].own_fault]
    spared = min(halvings, sum(past.cause in FAILURES and FAILURES[past.cause].action == "halve" for past in own))
    if len(own) - spared < _MAX_OWN and len(idle) < _MAX_OUTSIDE:
        return None
    causes = ", ".join(dict.fromkeys(past.cause for past in own or idle))
    last = next((past.reason for past in own or idle if past.reason), "nothing was said")
    reason = f"{len(own or idle)} attempts without progress ({causes}; the last: {last})"
    return Failure("no_progress", "stop", reason)


def _beat(running: Running, ended: threading.Event, die: Callable[[str], None]) -> None:
    """Renew the leases and the state while the attempt lives; end the process where a newer one has taken over."""
    while not ended.wait(RENEW_S):
        try:
            for lease in held():
                lease.renew()
                lease.check()
            if time.monotonic() - running.written > _STATE_S:
                running.write()
        except Fenced as error:
            running.fenced(error)
            die(str(error))
        except OSError:  # a full or vanished disk: the work itself will say so
            continue


def _die(reason: str) -> None:
    """End at once, children included (they die with their parent): whatever is not committed is not ours any more."""
    os.write(2, f"btrm: {reason}\n".encode())
    os._exit(1)


def consecutive(attempts: Sequence[Attempt], cause: str) -> int:
    """Return how many of the last attempts ended for this cause, one after another."""
    count = 0
    for past in reversed(attempts):
        if past.cause != cause:
            break
        count += 1
    return count
