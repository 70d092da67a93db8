"""A trainer process without a trainer: does steps of 50 ms, and what the request's `at` says for its rank.

python -m stand_in_rank REQUEST     # {"steps": n, "at": {"RANK": {"step": s, "do": "fail" | "hang" | "fence"}}}
One with "after": "RANK" fails when that one has.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from btrm.leases import Fenced
from btrm.stopping import Stopped, stop_asked
from btrm.train.rank import STOP_FILE, rank, report_step

NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")


def main(request: Path) -> None:
    told = json.loads(request.read_text())
    number = os.environ.get("RANK", "0")
    say(request.parent / f"env-{number}.json", {name: os.environ.get(name) for name in NAMES})
    time.sleep(told.get("start_s", 0.0))
    while len(list(request.parent.glob("env-*.json"))) < int(os.environ.get("WORLD_SIZE", "1")):
        time.sleep(0.02)  # no rank begins before all have met
    mine = told.get("at", {}).get(number, {"step": -1, "do": ""})
    for step in range(1, told["steps"] + 1):
        time.sleep(0.05)
        if mine["step"] == step:
            act(mine["do"], request.parent, mine.get("after"))
        if number == "0":
            report_step(request.parent, step, told["steps"])
        if stop_asked() or (STOP_FILE in os.environ and Path(os.environ[STOP_FILE]).exists()):
            (request.parent / f"stopped-{number}").write_text(str(step))
            raise Stopped


def say(path: Path, what: dict[str, str | None]) -> None:
    """Write a file that is whole as soon as it is there."""
    scratch = path.with_suffix(".part")
    scratch.write_text(json.dumps(what))
    scratch.rename(path)


def act(what: str, folder: Path, after: str | None) -> None:
    while after is not None and not (folder / f"failed-{after}").exists():
        time.sleep(0.05)
    if what == "fail":
        print("RuntimeError: CUDA out of memory")
        (folder / f"failed-{os.environ.get('RANK', '0')}").touch()
        sys.exit(3)
    if what == "fence":
        raise Fenced("a newer one")
    time.sleep(600)


if __name__ == "__main__":
    with rank():
        main(Path(sys.argv[1]))
