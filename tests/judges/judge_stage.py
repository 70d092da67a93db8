"""Run the teacher and judge stages for real; a rule stands in for the engine where no model is needed.

python judge_stage.py ROOT CONFIG.json KILL_AFTER     # is killed (-9) while it asks for the KILL_AFTER-th time
python judge_stage.py ROOT CONFIG.json KILL_AFTER ELEMENT ELEMENTS     # as one element of an array (0: not killed)
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from btrm.judges import grid
from btrm.judges.base import JudgeAnswer, JudgeRequest
from btrm.judges.engine import EngineSpec
from btrm.judges.rule import RULES, RuleJudge
from btrm.prompts import get_prompt
from btrm.publishing import write_json
from btrm.records import read_judgements
from btrm.runs import Resources, RunManifest, RunPaths, StageConfig, StageRun
from btrm.stages import execute, prepare
from btrm.work import read_units, share, write_units


class RuleEngine:
    """Answers at random whatever is selected, and notes what it was asked."""

    opened: ClassVar[list[str]] = []
    asked: ClassVar[list[int]] = []
    kill_after: ClassVar[int | None] = None

    def select(self, adapter: Path | None) -> None:
        del adapter

    def ask(self, requests: Sequence[JudgeRequest]) -> list[JudgeAnswer]:
        RuleEngine.asked.append(len(requests))
        if len(RuleEngine.asked) == RuleEngine.kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        return RuleJudge(RULES["rule_random"], get_prompt("toy_score100")).ask(requests)


@contextmanager
def open_rule(spec: EngineSpec) -> Generator[RuleEngine]:
    RuleEngine.opened.append(spec.model)
    yield RuleEngine()


def use_rule_engine() -> None:
    RuleEngine.opened, RuleEngine.asked, RuleEngine.kill_after = [], [], None
    grid.ENGINES["transformers"] = f"{__name__}:open_rule"


def run_stage(name: str, config: StageConfig, root: Path) -> RunManifest:
    prepared = prepare(name, config, Resources(), root)
    write_json(prepared.directory / "stage.json", prepared.request.model_dump(mode="json"))
    return execute(prepared.directory / "stage.json")


def rows(root: Path, stage: str = "judge") -> list[dict[str, Any]]:
    return read_judgements(root / stage / "judgements.parquet").to_pylist()


def stage_run(root: Path, stage: str = "judge") -> StageRun:
    """What an element of an array sees: the stage's directory, without holding it."""
    directory = root / stage
    return StageRun(RunPaths(root), stage, directory, Resources(), directory / "stage.json")


def do_share(config: grid.JudgeConfig, root: Path, element: int, elements: int) -> int:
    """Do one element's share of what was missing when the array began; return the pairs that it asked about."""
    run, split = stage_run(root), root / "split.json"
    if not split.exists():
        write_units(split, grid.work_judge(config, run))
    return sum(grid.share_judge(config, run, share(read_units(split), element, elements)))


if __name__ == "__main__":
    use_rule_engine()
    root, judge_config = Path(sys.argv[1]), grid.JudgeConfig.build(json.loads(Path(sys.argv[2]).read_text()))
    RuleEngine.kill_after = int(sys.argv[3])
    if len(sys.argv) > 4:
        do_share(judge_config, root, int(sys.argv[4]), int(sys.argv[5]))
    else:
        run_stage("judge", judge_config, root)
