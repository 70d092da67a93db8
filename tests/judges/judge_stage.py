"""Run the teacher and judge stages for real; a rule stands in for the engine where no model is needed.

python judge_stage.py ROOT CONFIG.json KILL_AFTER     # is killed (-9) while it asks for the KILL_AFTER-th time
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
from btrm.records import read_judgements
from btrm.runs import Resources, RunManifest, StageConfig, write_json
from btrm.stages import execute, prepare


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


if __name__ == "__main__":
    use_rule_engine()
    RuleEngine.kill_after = int(sys.argv[3])
    run_stage("judge", grid.JudgeConfig.build(json.loads(Path(sys.argv[2]).read_text())), Path(sys.argv[1]))
