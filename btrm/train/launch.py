"""Node 0's trainer processes: started by a stage, alone or with other nodes', and ended with it, whatever ends it."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Literal

from btrm.leases import Fenced, check_held, held
from btrm.progress import progress
from btrm.runs import Resources
from btrm.stopping import Stopped, stop_asked
from btrm.train.follow import follow
from btrm.train.job import Job, JobError, environment, process_count
from btrm.train.node import Place, Ranks, free_port, python
from btrm.train.nodes import Call, call, dismiss, failure_of_another, forget_older, place
from btrm.train.rank import FENCED, STOP_FILE, STOPPED, read_steps, report_step
from btrm.train.servers import Server, beside_proxies, wait_ready

__all__ = ["Job", "JobError", "dismiss", "follow", "process_count", "read_steps", "run_job", "serving"]

_POLL_S = 0.2
_SLOW_S = 2.0  # between looks at what lies on a shared file system
_OTHERS_S = 5.0  # within which other nodes may tell of their failure, once this one has failed


def run_job(job: Job, resources: Resources) -> None:
    """Run the trainer to its end, showing its steps.

    Raises Stopped where it was asked to stop, Fenced where a newer attempt has taken its place, and JobError with the
    log's tail where it fails.
    """
    attempt = _Attempt(job, resources.nodes)
    try:
        for _ in progress(attempt.steps(), job.steps, job.directory.name, "step"):
            pass
    finally:
        attempt.end()
    attempt.judge()


class _Attempt:
    """Node 0's processes while they run, and what it tells the other nodes."""

    def __init__(self, job: Job, nodes: int) -> None:
        self.job, self.nodes = job, nodes
        self.code: int | None = None
        self.others: list[Path] = []
        self._looked = 0.0
        self._stop_file = job.directory / ".attempts" / f"stop-{uuid.uuid4().hex[:8]}"
        report_step(job.directory, job.done, job.steps)
        env = {**environment(job, os.environ), STOP_FILE: str(self._stop_file)}
        where = _meeting(job, nodes - job.servers)
        self._ranks = Ranks(python(job.module, str(job.request)), job.processes, where, env, job.log)
        if nodes > 1:
            forget_older(job.directory)
            call(job.directory, _call(job, nodes - job.servers))

    def steps(self) -> Iterator[int]:
        """Yield once for each step that is done, until the processes end."""
        done = 0
        while self.code is None:
            self.code = self._poll()
            now, _ = read_steps(self.job.directory) or (0, None)
            yield from range(done, now)
            done = max(done, now)
            if self.code is None:
                self._stop_where_asked(done)
                time.sleep(_POLL_S)

    def end(self) -> None:
        """Kill what is left, and tell the other nodes."""
        self._ranks.end()
        if self.nodes > 1:
            dismiss(self.job.directory)

    def judge(self) -> None:
        """Raise what the end means."""
        if self.code == 0:
            return
        check_held()
        assert self.code is not None
        if self.code == FENCED:
            raise Fenced(f"{self.job.directory}: a newer attempt has taken this trainer's place")
        asked = stop_asked()
        if self.code == STOPPED:
            raise Stopped(asked or "the trainer was asked to stop")
        if asked is not None:
            raise Stopped(f"{asked}; the trainer ended with {self.code} before its next checkpoint, see {self.job.log}")
        raise JobError(self.job.module, self.code, self.job.log, self.others)

    def _poll(self) -> int | None:
        code = self._ranks.poll()
        if code is None and time.monotonic() - self._looked < _SLOW_S:
            return None
        self._looked = time.monotonic()
        check_held()
        if code in (None, 0):
            return self._failure_elsewhere() or code
        deadline = self._looked + _OTHERS_S * (code not in {STOPPED, FENCED})
        while self._failure_elsewhere() is None and self.nodes > 1 and time.monotonic() < deadline:
            time.sleep(_POLL_S)  # where one node fails, all do soon; the one that was first has more to tell
        return code

    def _failure_elsewhere(self) -> int | None:
        """Return the code of a failure on another node, and note its log."""
        failure = failure_of_another(self.job.directory, self.nodes)
        if failure is None:
            return None
        self.others = [Path(failure.log)]
        return failure.code

    def _stop_where_asked(self, done: int) -> None:
        """Ask the trainer to stop at the end of its step; where it has done none yet, nothing is lost by ending it."""
        if stop_asked() is None or self._stop_file.exists():
            return
        if done <= self.job.done:
            self.code = STOPPED
            return
        self._stop_file.parent.mkdir(exist_ok=True)
        self._stop_file.touch()


@contextlib.contextmanager
def serving(job: Job, nodes: range) -> Generator[list[Server]]:
    """Have the job's last nodes serve, and wait until they answer; where the block fails, all nodes are dismissed."""
    call(job.directory, _call(job, nodes.start, "serve"))
    try:
        servers = wait_ready(job.directory, nodes)
        with beside_proxies([server.host for server in servers]):
            yield servers
    except BaseException:
        dismiss(job.directory)
        raise


def _meeting(job: Job, nodes: int) -> Place:
    if nodes > 1:
        return place(nodes)
    return Place(port=free_port() if job.processes > 1 else None)


def _call(job: Job, nodes: int, state: Literal["serve", "run"] = "run") -> Call:
    return Call(
        state=state,
        module=job.module,
        request=str(job.request),
        processes=job.processes,
        cpu=job.cpu,
        nodes=nodes,
        log=str(job.log),
        leases=tuple((str(lease.directory), lease.number) for lease in held()),
    )
