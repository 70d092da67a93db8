"""A worker with a rule in the engine's place; the one named in BTRM_TEST_KILL dies in its second batch,
after BTRM_TEST_DIES_LATE seconds.

It answers as soon as both of two have been asked something: however late one starts, it finds work.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from judge_stage import RuleEngine, use_rule_engine

from btrm.judges.base import JudgeAnswer, JudgeRequest
from btrm.judges.worker import main

_ask = RuleEngine.ask


def ask(engine: RuleEngine, requests: Sequence[JudgeRequest]) -> list[JudgeAnswer]:
    folder = Path(os.environ["BTRM_TEST_SEEN"])
    with (folder / f"worker.{sys.argv[2]}").open("a") as file:
        file.write(f"{os.getpid()} {len(requests)}\n")
    deadline = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    late = RuleEngine.kill_after == len(RuleEngine.asked) + 1 and os.environ.get("BTRM_TEST_DIES_LATE")
    time.sleep(float(late or os.environ.get("BTRM_TEST_SLEEP", "0.02")))
    return _ask(engine, requests)


if __name__ == "__main__":
    use_rule_engine()
    RuleEngine.kill_after = 2 if os.environ.get("BTRM_TEST_KILL") == sys.argv[2] else None
    RuleEngine.ask = ask
    sys.exit(main(sys.argv[1:]))
