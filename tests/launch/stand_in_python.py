"""Stands in for a job's Python (a site's `python`, or its image's): runs the job, as slow or as broken as files say.

In FAULTS: `slow`: seconds that a rule takes to answer as a teacher. `fail.STEP`: what to raise, config or error.
Each start leaves its environment in `environ.STEP.PID`, with the files that it sees where it is as FILES_HERE.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from btrm.config import ConfigError
from btrm.launch import inside, job, step_work
from btrm.launch.submission import PlannedStep
from btrm.runs import RunManifest
from btrm.teacher.backends.rule import RuleBackend
from btrm.teacher.base import Call, Reply

FAULTS = Path(__file__).parent
_ask, _run_step = RuleBackend.ask, step_work.run_step


async def slow_ask(backend: RuleBackend, call: Call) -> Reply:
    """Wait, then answer."""
    slow = FAULTS / "slow"
    await asyncio.sleep(float(slow.read_text()) if slow.exists() else 0)
    return await _ask(backend, call)


def broken_step(step: PlannedStep, root: Path, *more: Any) -> RunManifest | None:
    """Run a step unless a file says that it fails."""
    fault = FAULTS / f"fail.{step.name}"
    if fault.exists():
        raise ConfigError("mended by hand") if fault.read_text() == "config" else RuntimeError("broken by hand")
    return _run_step(step, root, *more)


if __name__ == "__main__":
    RuleBackend.ask, step_work.run_step = slow_ask, broken_step
    words = sys.argv[1:]
    step = words[words.index("btrm.launch.job") + 2]
    seen = {**os.environ, "FILES_HERE": " ".join(path.name for path in Path.cwd().iterdir())}
    (FAULTS / f"environ.{step}.{os.getpid()}").write_text(json.dumps(seen))
    sys.exit(inside.main(words[2:]) if words[1] == "btrm.launch.inside" else job.main(words[2:]))
