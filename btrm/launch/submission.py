"""What a submission to a cluster keeps on disk, under RUN/.jobs/NAME: the plan, the jobs sent, a state an element.

The disk tells what was asked, sent, begun and done, where sacct is missing and squeue has forgotten. No pickle is
written or read: a job is handed the path of this folder and the name of its part of the plan.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson
from pydantic import Field

from btrm.config import Config, ConfigError
from btrm.publishing import read_json, write_json
from btrm.runs import Resources, now

JOBS = ".jobs"
PATROL = "patrol"  # the key of the job that looks after the controller
Kind = Literal["run", "array", "commit", "control"]
Outcome = Literal["running", "done", "stopped", "failed", "lost"]


class PlannedStep(Config):
    """One step of a plan on disk.

    `needs` names the steps of the plan whose outputs it reads. `elements` is the size of its job array, where its work
    is shared, and `parallelism` how many of them may run at a time. `code` has the digests of the user's own FILE.py.
    """

    name: str
    stage: str
    config: dict[str, object]
    resources: Resources
    needs: tuple[str, ...] = ()
    elements: int | None = None
    parallelism: int | None = None
    code: dict[str, str] = Field(default_factory=dict)


class Plan(Config):
    """What jobs are handed: everything they need, by path. `site` is the profile as it was when submitted.

    `code` is the path of the code's copy, `code_digest` what names the launcher's code; `image_stat` goes with
    `image_sha256` (see btrm.images), None where the image is no file.
    """

    root: str
    steps: tuple[PlannedStep, ...]
    env: dict[str, str]
    site: dict[str, object] = Field(default_factory=dict)
    code: str | None = None
    code_digest: str | None = None
    image_sha256: str | None = None
    image_stat: str | None = None
    after: str | None = None

    def step(self, name: str) -> PlannedStep:
        """Return a step by name."""
        return next(step for step in self.steps if step.name == name)


class SentJob(Config):
    """A job that sbatch took: `count` elements of a step, those numbered `first` + each index of `array`."""

    key: str
    step: str
    kind: Kind
    job_id: str
    first: int = 0
    count: int = 1
    array: str = ""
    sent: str = ""


class Attempt(Config):
    """One start of one element. Times are seconds since the epoch; `seen` is renewed while it lives.

    `done` counts pairs (arrays) or steps (trainers); `progressed` is when it last grew. `cause` is a failure class.
    """

    number: int
    job: str
    restarts: int
    host: str
    pid: int
    gpus: int
    started: float
    seen: float
    ended: float | None = None
    outcome: Outcome = "running"
    cause: str = ""
    reason: str = ""
    at_start: int = 0
    done: int = 0
    total: int | None = None
    progressed: float | None = None


class ElementState(Config):
    """What is known of one element of one step: all its attempts, the last one last."""

    step: str
    element: int
    attempts: tuple[Attempt, ...] = ()

    @property
    def last(self) -> Attempt | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None


@dataclass(frozen=True, slots=True)
class Submission:
    """The one place that joins paths below RUN/.jobs/NAME."""

    directory: Path

    @property
    def name(self) -> str:
        """The submission's name, part of its jobs' names on the cluster."""
        return self.directory.name

    @property
    def plan_file(self) -> Path:
        """The plan."""
        return self.directory / "plan.json"

    @property
    def logs(self) -> Path:
        """One log an element and node: JOB_TASK_NODE_log.out, and each job's script."""
        return self.directory / "logs"

    @property
    def images(self) -> Path:
        """A file a node that had a copy of the image to hash: what `stat` says of that copy."""
        return self.directory / "images"

    @property
    def stop_file(self) -> Path:
        """Written where the submission goes no further: why, and what can be done."""
        return self.directory / "stopped.json"

    def split(self, step: str) -> Path:
        """What was missing of a shared step when its array began: the units that its elements share."""
        return self.directory / f"{step}.units.json"

    def state(self, step: str, element: int) -> Path:
        """The state of one element."""
        return self.directory / "state" / f"{step}.{element}.json"

    def requeue_mark(self, slurm_id: str) -> Path:
        """While this file is there, the batch script puts its job back into the queue when its task has ended."""
        return self.directory / "requeue" / slurm_id

    def plan(self) -> Plan:
        """Return the plan; raise ConfigError where there is none."""
        if not self.plan_file.is_file():
            raise ConfigError(f"{self.plan_file}: no such plan")
        return Plan.build(json.loads(self.plan_file.read_text()), str(self.plan_file))

    def sent(self) -> list[SentJob]:
        """Return the jobs sent, in order; a torn last line (a crash while it was written) does not count."""
        path = self.directory / "jobs.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [job for line in lines if (job := _whole(line)) is not None]

    def record(self, job: SentJob) -> None:
        """Add a job, on disk before anything else is sent."""
        with (self.directory / "jobs.jsonl").open("a") as file:
            file.write("\n" + job.model_copy(update={"sent": now()}).model_dump_json() + "\n")  # not behind a torn line
            file.flush()
            os.fsync(file.fileno())

    def read_state(self, step: str, element: int) -> ElementState:
        """Return an element's state; one without attempts where it has not begun."""
        return _state(self.state(step, element)) or ElementState(step=step, element=element)

    def write_state(self, state: ElementState) -> None:
        """Write an element's state whole. No lease guards it: whoever is fenced must still be able to say so."""
        path = self.state(state.step, state.element)
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:6]}")
        try:
            scratch.write_bytes(orjson.dumps(state.model_dump(mode="json"), option=orjson.OPT_INDENT_2))
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)

    def states(self) -> Iterator[ElementState]:
        """Yield every element's state that has begun."""
        folder = self.directory / "state"
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
            if (state := _state(path)) is not None:
                yield state

    def stopped(self) -> dict[str, str] | None:
        """Return {cause, reason, advice} where the submission goes no further."""
        return read_json(self.stop_file)


def new_submission(root: Path, plan: Plan) -> Submission:
    """Write a plan under a name of its own, so that a later submission cannot change it."""
    moment = time.time()  # names sort by time, also those of one second
    stamp = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(moment))}{int(moment * 1000) % 1000:03d}"
    submission = Submission(root / JOBS / f"{stamp}-{uuid.uuid4().hex[:4]}")
    write_json(submission.plan_file, plan.model_dump(mode="json"))
    return submission


def submissions(root: Path) -> list[Submission]:
    """Return a run's submissions to a cluster, oldest first."""
    return [Submission(path.parent) for path in sorted((root / JOBS).glob("*/plan.json"))]


def _state(path: Path) -> ElementState | None:
    """Return a state; None where there is none, or a power cut left an empty one."""
    try:
        return ElementState.model_validate(orjson.loads(path.read_bytes()))
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None


def _whole(line: str) -> SentJob | None:
    try:
        return SentJob.build(json.loads(line))
    except json.JSONDecodeError:
        return None
