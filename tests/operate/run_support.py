"""Runs on a cluster as they lie on disk, made up; and a queue that says what it is told."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from btrm.launch.submission import Attempt, ElementState, Plan, PlannedStep, SentJob, Submission
from btrm.publishing import write_json
from btrm.runs import MANIFEST, REQUEST, Resources
from btrm.work import Unit, write_units

NAME = "20260101T000000-abcd"
GPU = Resources(nodes=2, gpus=4, cpus=8)


def plan(root: Path, elements: int = 4) -> Plan:
    """A chain of three steps: pairs, a judge as an array, its evaluation; and a trainer beside."""
    steps = (
        PlannedStep(name="pairs", stage="pairs", config={"n": 1}, resources=Resources()),
        PlannedStep(name="grpo", stage="grpo", config={"n": 1}, resources=GPU, needs=("pairs",)),
        PlannedStep(
            name="judge",
            stage="judge",
            config={"n": 1},
            resources=Resources(gpus=1),
            needs=("pairs",),
            elements=elements,
        ),
        PlannedStep(name="evaluate", stage="evaluate", config={"n": 1}, resources=Resources(), needs=("judge",)),
    )
    return Plan(root=str(root), steps=steps, env={}, site={"name": "onebox", "executor": "slurm"})


def submit(root: Path, elements: int = 4) -> Submission:
    """A submission all of whose jobs are sent, before any has begun; pairs is complete."""
    submission = Submission(root / ".jobs" / NAME)
    write_json(submission.plan_file, plan(root, elements).model_dump(mode="json"))
    submission.logs.mkdir()
    for key, kind, job_id in (
        ("pairs", "run", "1"),
        ("grpo", "run", "2"),
        ("judge.0", "array", "3"),
        ("judge.commit", "commit", "4"),
        ("evaluate", "run", "5"),
        ("control", "control", "6"),
    ):
        count = elements if kind == "array" else 1
        step = key.partition(".")[0]
        submission.record(SentJob.build({"key": key, "step": step, "kind": kind, "job_id": job_id, "count": count}))
    complete(root, "pairs")
    return submission


def complete(root: Path, step: str, outputs: Mapping[str, int] | None = None) -> None:
    """Give a step a manifest that claims these files, as far as any reader of it looks."""
    values: dict[str, Any] = {
        "stage": step,
        "name": step,
        "fingerprint": "f",
        "config": {"n": 1},
        "inputs": {},
        "outputs": {name: {"sha256": "0", "bytes": size} for name, size in (outputs or {}).items()},
        "results": {},
        "resources": Resources().model_dump(),
        "git": None,
        "image": None,
        "packages": {},
        "host": "n1",
        "job_ids": [],
        "started": "",
        "finished": "",
        "seconds": 1.0,
    }
    write_json(root / step / MANIFEST, values)
    request(root, step)


def request(root: Path, step: str) -> None:
    """Ask for a step."""
    asked = ("stage", "name", "config", "resources", "fingerprint", "inputs")
    values: dict[str, Any] = {key: {} for key in asked} | dict.fromkeys(("stage", "name"), step)
    write_json(root / step / REQUEST, values | {"root": str(root), "fingerprint": "f"})


def attempt(number: int = 1, job: str = "2", **values: Any) -> Attempt:
    """An attempt that began 100 s ago and has just been seen."""
    now = time.time()
    usual = {"restarts": 0, "host": "n1", "pid": 1, "gpus": 0, "started": now - 100, "seen": now}
    return Attempt.build({**usual, "number": number, "job": job, **values})


def state(submission: Submission, step: str, element: int, *attempts: Attempt) -> None:
    submission.write_state(ElementState(step=step, element=element, attempts=attempts))


def units(submission: Submission, sizes: Mapping[str, int]) -> None:
    """The split of the judge's work: cells of so many rows."""
    write_units(submission.split("judge"), [Unit(name, ((0, size),)) for name, size in sizes.items()])


def queue_line(job: str, key: str, status: str = "PENDING", reason: str = "Priority", node: str = "") -> str:
    return f"{job}|{status}|{node}|1:00:00|N/A|btrm-{NAME}-{key}|{reason}"


class FakeQueue:
    """A squeue, a scancel and a sacct on PATH; scancel takes its jobs out of the queue and writes down what it got."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "bin"
        self.folder.mkdir()
        self._script("squeue", f'cat "{self.folder}/lines" 2>/dev/null || {{ echo "no slurmctld" >&2; exit 1; }}')
        cancel = f'for job in "$@"; do echo "$job" >> {self.folder}/cancelled; '
        cancel += f'sed -i -E "/^$job(_[^|]*)?\\|/d" {self.folder}/lines; done'
        self._script("scancel", cancel)
        self._script("sacct", f'cat "{self.folder}/accounts" 2>/dev/null || exit 1')
        monkeypatch.setenv("PATH", f"{self.folder}:{os.environ['PATH']}")
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        self.hold()

    def hold(self, *lines: str) -> None:
        """Have the queue hold these jobs."""
        (self.folder / "lines").write_text("".join(f"{line}\n" for line in lines))
        for file in (self.folder.parent / "cache").rglob("queue-*.json"):
            file.unlink()

    def fail(self) -> None:
        """Have slurmctld down."""
        self.hold()
        (self.folder / "lines").unlink()

    def remember(self, lines: str) -> None:
        """Have sacct say so much."""
        (self.folder / "accounts").write_text(lines)

    @property
    def cancelled(self) -> list[str]:
        path = self.folder / "cancelled"
        return path.read_text().split() if path.exists() else []

    def _script(self, name: str, text: str) -> None:
        (self.folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.folder / name).chmod(0o755)


def written(path: Path) -> Any:
    return json.loads(path.read_text())
