"""Trainer processes: started by a stage, on one node or several, and ended with it, whatever ends it."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from btrm.leases import VARIABLE, Fenced, check_held, held
from btrm.progress import progress
from btrm.runs import MANIFEST, Resources, StageError
from btrm.stopping import Stopped, stop_asked
from btrm.train.node import Place, Ranks, free_port, python
from btrm.train.nodes import Call, Failure, Watch, call, dismiss, failure_of_another, heard, place, tell_failure
from btrm.train.rank import FENCED, STOP_FILE, STOPPED, read_steps, report_step

__all__ = ["Job", "JobError", "dismiss", "follow", "process_count", "read_steps", "run_job"]

_LOG_TAIL = 30
_POLL_S = 0.2
_SLOW_S = 2.0  # between looks at what lies on a shared file system
_HEARD_S = 30.0  # within which node 0 hears of another node's failure


class JobError(StageError):
    """A trainer process that ended with an error; the message ends in the tail of its log."""

    def __init__(self, module: str, code: int, log: Path) -> None:
        tail = log.read_text(errors="replace").splitlines()[-_LOG_TAIL:]
        super().__init__(f"{module} ended with {code}; {log} ends in:\n" + "\n".join(tail))
        self.module, self.code = module, code


@dataclass(frozen=True, slots=True)
class Job:
    """One trainer run: our own module as the entry point of every process, and the request that it reads.

    `processes` are a node's; `done` steps are on disk already.
    """

    module: str
    request: Path
    processes: int
    cpu: bool
    log: Path
    steps: int | None
    done: int = 0

    @property
    def directory(self) -> Path:
        """The stage's directory."""
        return self.request.parent


def process_count(resources: Resources, cpu_processes: int) -> int:
    """Return the processes a node: one a GPU, or as many as asked for on a CPU."""
    return resources.gpus if resources.gpus > 0 else cpu_processes


def run_job(job: Job, resources: Resources) -> None:
    """Run the trainer to its end, showing its steps.

    Raises Stopped where it was asked to stop, Fenced where a newer attempt has taken its place, and JobError with the
    log's tail where it fails.
    """
    where = _meeting(job, resources.nodes)
    attempt = _Attempt(job, where)
    try:
        for _ in progress(attempt.steps(), job.steps, job.directory.name, "step"):
            pass
    finally:
        attempt.end()
    attempt.judge()


class _Attempt:
    """Node 0's processes while they run, and what it tells the other nodes."""

    def __init__(self, job: Job, where: Place) -> None:
        self.job, self.where = job, where
        self.code: int | None = None
        self.log = job.log
        self._looked = 0.0
        self._stop_file = job.directory / ".attempts" / f"stop-{uuid.uuid4().hex[:8]}"
        report_step(job.directory, job.done, job.steps)
        env = {**environment(job, os.environ), STOP_FILE: str(self._stop_file)}
        self._ranks = Ranks(python(job.module, str(job.request)), job.processes, where, env, job.log)
        if where.nodes > 1:
            call(job.directory, _call(job, where.nodes))

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
        if self.where.nodes > 1:
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
            raise Stopped(f"{asked}; the trainer ended with {self.code} before its next checkpoint, see {self.log}")
        raise JobError(self.job.module, self.code, self.log)

    def _poll(self) -> int | None:
        code = self._ranks.poll()
        if code not in (None, 0) or (code is None and time.monotonic() - self._looked < _SLOW_S):
            return code
        self._looked = time.monotonic()
        check_held()
        failure = failure_of_another(self.job.directory, self.where.nodes)
        if failure is not None:
            self.log = Path(failure.log)
        return failure.code if failure is not None else code

    def _stop_where_asked(self, done: int) -> None:
        """Ask the trainer to stop at the end of its step; where it has done none yet, nothing is lost by ending it."""
        if stop_asked() is None or self._stop_file.exists():
            return
        if done <= self.job.done:
            self.code = STOPPED
            return
        self._stop_file.parent.mkdir(exist_ok=True)
        self._stop_file.touch()


def follow(stage_dir: Path) -> int:
    """Run this node's processes of the stage that node 0 runs; called on every node but node 0.

    Waits for node 0 to start its trainer. Returns 0 where node 0 has ended without one, has ended already, or will tell
    how it ended; else the code of what failed here, for Slurm to end the other nodes.
    """
    watch = Watch(stage_dir)
    while (said := heard(stage_dir)) is None:
        if watch.lost():
            return 0 if (stage_dir / MANIFEST).exists() else 1
        time.sleep(_SLOW_S / 2)
    return _follow(stage_dir, said, watch) if said.state == "run" else 0


def _follow(stage_dir: Path, said: Call, watch: Watch) -> int:
    where = place(said.nodes)
    job = Job(said.module, Path(said.request), said.processes, said.cpu, Path(said.log), None)
    log = job.log.with_name(f"{job.log.stem}-node{where.node}{job.log.suffix}")
    env = {**environment(job, os.environ), VARIABLE: json.dumps(said.leases)}
    ranks = Ranks(python(job.module, str(job.request)), job.processes, where, env, log)
    try:
        code = _wait(said, stage_dir, ranks, watch)
    finally:
        ranks.end()
    if code in {0, STOPPED}:
        return 0  # node 0 tells the rest: an exit code of ours would have Slurm end it before it could
    tell_failure(stage_dir, Failure(node=where.node, code=code, log=str(log)))
    return 0 if _node_0_heard(stage_dir) else code


def _wait(said: Call, stage_dir: Path, ranks: Ranks, watch: Watch) -> int:
    """Return how this node's processes ended; 0 where node 0 ended before them. Raises Fenced, as node 0 would."""
    looked = 0.0
    while (code := ranks.poll()) is None:
        time.sleep(_POLL_S)
        if time.monotonic() - looked < _SLOW_S:
            continue
        looked = time.monotonic()
        said.check_held()
        if _over(stage_dir):
            return 0
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


def environment(job: Job, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the children's environment: hub by Hugging Face, one thread a process unless told otherwise."""
    env = {**environ, "USE_HF": "1", "PYTHONUNBUFFERED": "1"}
    if job.cpu or job.processes > 1:
        env["OMP_NUM_THREADS"] = environ.get("OMP_NUM_THREADS") or "1"
    if job.cpu:
        env["CUDA_VISIBLE_DEVICES"] = ""
        env["VLLM_PLUGINS"] = ""  # ms-swift's vLLM plug-in needs torchvision, which the CPU build has not
    return env


def _meeting(job: Job, nodes: int) -> Place:
    if nodes > 1:
        return place(nodes)
    return Place(port=free_port() if job.processes > 1 else None)


def _call(job: Job, nodes: int) -> Call:
    return Call(
        state="run",
        module=job.module,
        request=str(job.request),
        processes=job.processes,
        cpu=job.cpu,
        nodes=nodes,
        log=str(job.log),
        leases=tuple((str(lease.directory), lease.number) for lease in held()),
    )
