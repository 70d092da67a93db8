"""How long `btrm status` of 10,000 cells takes, start of Python included. Target: under 1 s.

One array of 10,000 elements and as many cells: half of them done, a tenth running or failed, the rest in the queue,
which squeue (one line for all that wait) is not asked for here. Beside it, every state read and checked in full.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import orjson

from btrm.launch.submission import Attempt, ElementState, Plan, PlannedStep, SentJob, Submission
from btrm.publishing import write_json
from btrm.runs import Resources
from btrm.work import Unit, write_units

TARGET_S = 1.0
CELLS = 10_000


def make_run(root: Path) -> Submission:
    submission = Submission(root / ".jobs" / "bench")
    step = PlannedStep(name="judge", stage="judge", config={}, resources=Resources(gpus=1), elements=CELLS)
    write_json(submission.plan_file, Plan(root=str(root), steps=(step,), env={}).model_dump(mode="json"))
    submission.record(SentJob(key="judge.0", step="judge", kind="array", job_id="7", count=CELLS))
    write_units(submission.split("judge"), [Unit(f"cell{number}", ((0, 2000),)) for number in range(CELLS)])
    submission.state("judge", 0).parent.mkdir()
    for element in range(CELLS * 6 // 10):
        outcome = "done" if element < CELLS // 2 else ("running", "failed")[element % 2]
        submission.state("judge", element).write_bytes(orjson.dumps(made_state(element, outcome).model_dump()))
    return submission


def made_state(element: int, outcome: str) -> ElementState:
    now = time.time()
    values = {"job": f"7_{element}", "restarts": 0, "host": f"n{element % 99}", "pid": 1, "gpus": 1, "outcome": outcome}
    times = {"started": now - 600, "seen": now, "progressed": now, "done": 1000, "total": 2000}
    lost = Attempt.build({**values, **times, "number": 1, "outcome": "lost", "cause": "preempted"})
    return ElementState(
        step="judge",
        element=element,
        attempts=(
            lost,
            Attempt.build({**values, **times, "number": 2, "cause": "nccl" if outcome == "failed" else ""}),
        ),
    )


def best_s(function: Callable[[], object]) -> float:
    times: list[float] = []
    for _ in range(5):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return min(times)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        submission = make_run(Path(folder))
        environ = os.environ | {"XDG_CACHE_HOME": folder}
        command = [sys.executable, "-m", "btrm.cli", "status", folder]
        ours = best_s(lambda: subprocess.run(command, env=environ, capture_output=True, check=True))
        full = best_s(lambda: list(submission.states()))
    print(f"btrm status of {CELLS} cells: {ours:.2f} s (best of 5, target < {TARGET_S} s)")
    print(f"every state read and checked in full, instead of what is wanted of it: {full:.2f} s alone")
    return 0 if ours < TARGET_S else 1


if __name__ == "__main__":
    sys.exit(main())
