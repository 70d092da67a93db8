"""The commands that operate runs: their flags and what they print. Everything is imported inside the command."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

_WATCH_S = 5.0
_CLEAR = "\x1b[H\x1b[2J"


def add_commands(add: Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]) -> None:
    """Add the commands; `add(name, function, help)` makes one."""
    status = add("status", _status, "how far runs are: steps, elements, progress, what went wrong and what follows")
    status.add_argument("run", nargs="*", help="a folder or an experiment's name (default: every run below runs/)")
    status.add_argument("--watch", action="store_true", help="show it again and again until nothing more will happen")
    status.add_argument("--json", action="store_true", help="one JSON object a run, a line each")


def _status(args: argparse.Namespace) -> int:
    from btrm.operate.status import run_status
    from btrm.operate.table import render
    from btrm.operate.where import find_runs

    runs = find_runs(args.run)
    if args.json:
        return _json(runs)
    try:
        while True:
            found = [run_status(root) for root in runs]
            text = "\n\n".join(map(render, found))
            print(f"{_CLEAR}{text}" if args.watch else text, flush=True)
            if not args.watch or all(status.finished for status in found):
                return 0
            time.sleep(_WATCH_S)
    except KeyboardInterrupt:
        return 0


def _json(runs: list[Path]) -> int:
    import json
    from dataclasses import asdict

    from btrm.operate.status import run_status

    for root in runs:
        print(json.dumps(asdict(run_status(root)), ensure_ascii=False))
    return 0
