"""A seeded saboteur: breaks a one-box cluster while a pipeline runs on it, in an order that its seed decides."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from btrm.config import ConfigError
from btrm.launch.submission import Submission
from btrm.onebox import faults
from btrm.onebox.box import ClusterError, OneBox

# slurmctld writes its state a few seconds after sbatch; killed before that, it would lose the job, which no client can
# help but by sending it again.
_SAFE_AFTER_SBATCH_S = 10.0


@dataclass
class Saboteur:
    """Inflicts `count` faults, each undone after a few seconds, and keeps a list of them."""

    box: OneBox
    submission: Submission
    disk: Path | None
    seed: int
    count: int
    done: list[str] = field(default_factory=list)
    killed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def run(self, finished: Callable[[], bool], pause: tuple[float, float] = (2.0, 9.0)) -> None:
        """Break things until the count is reached or the work is finished, then heal everything."""
        kinds = self._kinds()
        while len(self.done) < self.count and not finished():
            time.sleep(self.random.uniform(*pause))
            kind = self.random.choice(kinds)
            try:
                if (said := kind()) is not None:
                    self.done.append(said)
            except (ConfigError, ClusterError, subprocess.CalledProcessError):
                continue  # its target was gone before it could be hit
        for node in self.box.names:
            faults.node_back(self.box, node)

    def _kinds(self) -> list[Callable[[], str | None]]:
        kinds = [self.task_kill] * 4 + [self.cancel_one] * 3
        kinds += [self.node_down, self.node_kill, self.preempt, self.preempt, self.requeue, self.time_limit]
        kinds += [self.controller_crash] * 4  # seldom possible: see _SAFE_AFTER_SBATCH_S
        kinds += [self.full_disk] if self.disk is not None else []
        return kinds + ([self.no_accounting] if self.box.accounting else [])

    def task_kill(self) -> str | None:
        """Kill -9 a job's tasks, but none twice at the same point: two such deaths are taken as the job's own fault."""
        running = [(job, f"{name} at {self._progress(job)}") for job, name in self._jobs("--states=running")]
        fresh = [(job, point) for job, point in running if point not in self.killed]
        if not fresh:
            return None
        job, point = self.random.choice(fresh)
        self.killed.add(point)
        return faults.task_kill(self.box, job)

    def _progress(self, job: str) -> str:
        last = [(s.element, s.last.at_start) for s in self.submission.states() if s.last and s.last.job == job]
        return str(last)

    def requeue(self) -> str | None:
        return self._of_running(lambda job: faults.requeue(self.box, job))

    def time_limit(self) -> str | None:
        return self._of_running(lambda job: faults.time_limit(self.box, job))

    def cancel_one(self) -> str | None:
        """Scancel one job or array element, running or pending; the controller is the user's own switch and stays."""
        jobs = [job for job, name in self._jobs() if not name.endswith("-control")]
        if not jobs:
            return None
        job = self.random.choice(jobs)
        self.box.run("scancel", job)
        return f"cancelled {job}"

    def node_down(self) -> str | None:
        return self._node(faults.node_down)

    def node_kill(self) -> str | None:
        return self._node(faults.node_kill)

    def preempt(self) -> str | None:
        return faults.preempt(self.box, self.random.choice(self.box.names))

    def controller_crash(self) -> str | None:
        jobs = self.submission.directory / "jobs.jsonl"
        if time.time() - jobs.stat().st_mtime < _SAFE_AFTER_SBATCH_S:
            return None
        self.box.kill_controller()
        time.sleep(self.random.uniform(0.5, 3.0))
        self.box.start_controller()
        return "slurmctld killed and started"

    def no_accounting(self) -> str | None:
        faults.dbd_kill(self.box)
        time.sleep(self.random.uniform(2.0, 6.0))
        faults.dbd_back(self.box)
        return "slurmdbd killed and started"

    def full_disk(self) -> str | None:
        assert self.disk is not None
        room = os.statvfs(self.disk)
        filler = self.disk / ".filler"
        try:
            with filler.open("wb") as file:
                for _ in range(room.f_bavail * room.f_frsize // 2**20 + 2):
                    file.write(bytes(2**20))
        except OSError:
            pass
        time.sleep(self.random.uniform(1.0, 3.0))
        filler.unlink()
        return "the disk was full for a moment"

    def _node(self, fault: Callable[[OneBox, str], str]) -> str:
        node = self.random.choice(self.box.names)
        said = fault(self.box, node)
        time.sleep(self.random.uniform(4.0, 14.0))
        faults.node_back(self.box, node)
        return said

    def _of_running(self, fault: Callable[[str], str]) -> str | None:
        running = [job for job, _ in self._jobs("--states=running")]
        return fault(self.random.choice(running)) if running else None

    def _jobs(self, *options: str) -> list[tuple[str, str]]:
        lines = self.box.run("squeue", "--noheader", "--array", "--format=%i %j", *options).splitlines()
        rows = [line.split() for line in lines]
        return [(job, name) for job, name in rows if name.startswith(f"btrm-{self.submission.name}-")]
