"""Stands in for a job's Python: judges by a rule, and slowly where the element's number is in `slow` beside it."""

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
_ask = SkilledEngine.ask


def ask(engine: SkilledEngine, requests: Sequence[JudgeRequest]) -> list[JudgeAnswer]:
    task = os.environ.get("SLURM_ARRAY_TASK_ID", "none")
    with (HERE / f"asked.{task}").open("a") as file:
        file.write(f"{len(requests)}\n")
    time.sleep(float((HERE / "slow").read_text()) if task == "0" else 0.05)
    return _ask(engine, requests)


if __name__ == "__main__":
    SkilledEngine.ask = ask
    grid.ENGINES["transformers"] = "judged_run:open_skilled"
    words = sys.argv[1:]
    sys.exit(inside.main(words[2:]) if words[1] == "btrm.launch.inside" else job.main(words[2:]))
