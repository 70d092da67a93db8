"""A stage as small as can be, for tests of how stages are prepared, executed and committed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from btrm.config import extent, runtime, setting, source
from btrm.publishing import replace, win
from btrm.runs import StageConfig, StageResult, StageRun


class CountingConfig(StageConfig):
    """Writes the numbers below `count`, one part each; `kill_at` kills the process in the middle of that part."""

    base: str | None = source(None, "a file")
    factor: int = setting(1, "a factor")
    count: int = extent(3, "how many")
    batch: int = runtime(1, "no matter")
    kill_at: int | None = runtime(None, "kill -9 at this number")


def run_counting(config: CountingConfig, run: StageRun) -> StageResult:
    """Write parts/N, each won once, and their sum."""
    for number in range(config.count):
        if number == config.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        part = run.dir / "parts" / str(number)
        if not part.exists():
            scratch = run.scratch("part")
            scratch.write_text(f"{number * config.factor} {os.getpid()}\n")
            assert win(scratch, part)
    total = sum(int(part.read_text().split()[0]) for part in (run.dir / "parts").iterdir())
    scratch: Path = run.scratch("total")
    scratch.write_text(str(total))
    replace(scratch, run.dir / "total.txt")
    return StageResult({"total.txt": 1, "parts": None}, {"total": total})
