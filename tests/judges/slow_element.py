"""An element of an array that answers slowly: python slow_element.py ROOT CONFIG.json ELEMENT OF SECONDS|FILE.

It writes what it is asked to ROOT/asked.ELEMENT, a line a batch, then sleeps so long, or until ROOT/FILE is there.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from judge_stage import RuleEngine, stage_run, use_rule_engine

from btrm.judges import grid
from btrm.judges.base import JudgeAnswer, JudgeRequest
from btrm.work import Pool, read_units


def main() -> None:
    root, element, elements, until = Path(sys.argv[1]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    config = grid.JudgeConfig.build(json.loads(Path(sys.argv[2]).read_text()))
    ask = RuleEngine.ask

    def slow(engine: RuleEngine, requests: Sequence[JudgeRequest]) -> list[JudgeAnswer]:
        keys = [[r.pair.label_id, r.side, r.seed] for r in requests]
        with (root / f"asked.{element}").open("a") as file:
            file.write(json.dumps({"element": element, "keys": keys}) + "\n")
        (root / f"begun.{element}").touch()
        rest(root, until)
        return ask(engine, requests)

    use_rule_engine()
    RuleEngine.ask = slow
    pool = Pool(read_units(root / "split.json"), element, elements)
    print(sum(grid.share_judge(config, stage_run(root), pool.own(), pool)))


def rest(root: Path, until: str) -> None:
    if until[0].isdigit():
        time.sleep(float(until))
        return
    while not (root / until).exists():
        time.sleep(0.05)


if __name__ == "__main__":
    main()
