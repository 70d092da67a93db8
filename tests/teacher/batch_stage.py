"""Run shares of the teacher stage in batch mode, for tests; as a process it can be killed on the way.

python batch_stage.py ROOT CONFIG.json KILL_AFTER     # is killed (-9) at the KILL_AFTER-th answer (0: not by itself)
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from btrm.judges.pair_sets import PairSets
from btrm.judges.rebuild import rebuild
from btrm.records import PreferencePair, read_judgements, write_pairs
from btrm.runs import Resources, RunPaths, StageRun
from btrm.teacher import batch_desk, stage
from btrm.teacher.config import TeacherConfig
from btrm.teacher.journal import Entry, Journal, journals, read_journal
from btrm.work import Unit, share


def write_toy(root: Path, count: int) -> None:
    """Write pairs.parquet: short responses, each another text."""
    pairs = (
        PreferencePair(f"{n:04x}", f"{n:04x}-0", f"Question {n}?", (f"Yes {n}.", f"No {n}."), n % 2, "toy", "train")
        for n in range(count)
    )
    write_pairs(root / "pairs.parquet", pairs)


def stage_run(root: Path) -> StageRun:
    return StageRun(RunPaths(root), "teacher", root / "teacher", Resources(), root / "teacher" / "stage.json")


def do_share(config: TeacherConfig, root: Path, element: int = 0, elements: int = 1) -> int:
    """Do one element's share of all pairs; return how many it completed."""
    run = stage_run(root)
    units = [Unit("part", ((0, config.n_pairs or 0),))]
    return sum(stage.share_teacher(config, run, share(units, element, elements)))


def rows(config: TeacherConfig, root: Path) -> list[dict[str, object]]:
    run = stage_run(root)
    pairs = stage._pairs(config, run)
    rebuild(run, run.dir / "parts", [stage.cell_of(config, run)], PairSets({None: pairs}))
    return read_judgements(run.dir / "judgements.parquet").to_pylist()


def entries(root: Path) -> list[Entry]:
    return [entry for path in journals(root / "teacher" / "calls") for entry in read_journal(path)]


def die_at(answer: int) -> None:
    """Have this process killed when so many answers have been handed to the journal."""
    write, seen = Journal.write, [0]

    async def counted(self: Journal, entry: Entry) -> None:
        seen[0] += 1
        if seen[0] == answer:
            os.kill(os.getpid(), signal.SIGKILL)
        await write(self, entry)

    Journal.write = counted
    batch_desk._TOGETHER = 2


if __name__ == "__main__":
    if int(sys.argv[3]):
        die_at(int(sys.argv[3]))
    do_share(TeacherConfig(**json.loads(Path(sys.argv[2]).read_text())), Path(sys.argv[1]))
