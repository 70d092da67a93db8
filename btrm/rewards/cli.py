"""`btrm rewards --batches F.jsonl`: try a published reward without a GPU."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from btrm.config import ConfigError
from btrm.rewards.config import RewardConfig
from btrm.rewards.reward import reward_completions

_COLUMNS = ("completions", "pair_id", "side", "preferred_side")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `btrm rewards`."""
    parser.add_argument(
        "--batches",
        required=True,
        metavar="F.jsonl",
        help="one JSON object a line: reward, parser, params, completions, pair_id, side, preferred_side; - for stdin",
    )


def main(args: argparse.Namespace) -> int:
    """Print one JSON array of rewards a line, exactly as published; ConfigError with file:line for a bad line."""
    if args.batches == "-":
        _print_all(sys.stdin, "<stdin>")
        return 0
    path = Path(args.batches)
    if not path.is_file():
        raise ConfigError(f"--batches {path}: no such file")
    with path.open(encoding="utf-8") as lines:
        _print_all(lines, str(path))
    return 0


def _print_all(lines: Iterable[str], where: str) -> None:
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                print(json.dumps(batch_rewards(line)))
            except ConfigError as error:
                raise ConfigError(f"{where}:{number}: {error}") from None


def batch_rewards(line: str) -> list[float]:
    """Return the rewards of one line, in parity mode; raise ConfigError for what is wrong with it."""
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigError(f"not JSON: {error}") from None
    if not isinstance(row, dict):
        raise ConfigError(f"expected a JSON object, got {type(row).__name__}")
    missing = [key for key in ("reward", "parser", *_COLUMNS) if key not in row]
    if missing:
        raise ConfigError(f"missing: {', '.join(missing)}")
    if not isinstance(row.get("params", {}), dict):
        raise ConfigError(f"params: an object of published names is valid, got {row['params']!r}")
    config = RewardConfig.parity({**row.get("params", {}), "name": row["reward"], "parser": row["parser"]})
    no_list = [key for key in _COLUMNS if not isinstance(row[key], list)]
    if no_list:
        raise ConfigError(f"{', '.join(no_list)}: a list is valid")
    if not all(isinstance(text, str) for text in row["completions"]):
        raise ConfigError("completions: a list of texts is valid")
    completions, pair_id, side, preferred_side = (row[key] for key in _COLUMNS)
    return reward_completions(completions, pair_id, side, preferred_side, config).reward_N.tolist()


def _standalone() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    try:
        return main(parser.parse_args())
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(_standalone())
