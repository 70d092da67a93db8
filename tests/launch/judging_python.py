"""Stands in for a job's Python: judges by a rule. Element 0 answers when the others have asked `slow` batches.

`slow` is a file beside it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from judged_run import SkilledEngine

from btrm.judges import grid
from btrm.judges.base import JudgeAnswer, JudgeRequest
from btrm.launch import inside, job

HERE = Path(__file__).parent
_PATIENCE_S = 60.0  # others that never take over are a failure, not a test without an end
_ask = SkilledEngine.ask


def ask(engine: SkilledEngine, requests: Sequence[JudgeRequest]) -> list[JudgeAnswer]:
    task = os.environ.get("SLURM_ARRAY_TASK_ID", "none")
    with (HERE / f"asked.{task}").open("a") as file:
        file.write(f"{len(requests)}\n")
    deadline = time.monotonic() + _PATIENCE_S
    while task == "0" and _asked_by_others() < int((HERE / "slow").read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return _ask(engine, requests)


def _asked_by_others() -> int:
    return sum(len(path.read_text().split()) for path in HERE.glob("asked.*") if path.suffix != ".0")


if __name__ == "__main__":
    SkilledEngine.ask = ask
    grid.ENGINES["transformers"] = "judged_run:open_skilled"
    words = sys.argv[1:]
    sys.exit(inside.main(words[2:]) if words[1] == "btrm.launch.inside" else job.main(words[2:]))
