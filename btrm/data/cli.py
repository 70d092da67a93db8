"""`btrm data inspect|convert`: what a file of preferences holds, and the same pairs for another trainer."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from btrm.config import ConfigError
from btrm.data.asked_files import AskedFiles
from btrm.data.detect import AUTO
from btrm.data.tally import Limits

_MOST_COLUMNS = 120


def main(argv: Sequence[str]) -> int:
    """Run `btrm data …`; return its exit status. Raises ConfigError for a wrong request or a malformed row."""
    args = _parser().parse_args(argv or ["--help"])
    return args.function(args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="btrm data", description="Files of preferences: what they hold, other forms.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    inspect = _command(
        commands.add_parser, "inspect", "what a file holds: format, labels, ties, duplicates, lengths, three pairs"
    )
    inspect.set_defaults(function=_inspect)
    inspect.add_argument("--json", action="store_true", help="one JSON object instead of the page")
    inspect.add_argument("--tokenizer", type=Path, metavar="DIR", help="count tokens too, with this model's tokenizer")
    inspect.add_argument("--max-chars", type=int, default=Limits().characters, help="over-long response (10000)")
    inspect.add_argument("--max-tokens", type=int, default=Limits().tokens, help="over-long with its context (4096)")
    inspect.add_argument("--on-error", choices=("raise", "skip"), default="skip", help="at a malformed row (skip)")
    return parser


def _command(add: Callable[..., argparse.ArgumentParser], name: str, text: str) -> argparse.ArgumentParser:
    parser = add(name, help=text, description=text)
    parser.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help="JSONL, JSON or Parquet, or folders of them"
    )
    parser.add_argument(
        "--dataset", default=AUTO, help="a data set's name, or FILE.py:function (default: by the columns)"
    )
    parser.add_argument("--split", help="the split that the pairs are of (default: what the files say, else test)")
    parser.add_argument("--columns", nargs="+", default=[], metavar="ROLE=COLUMN", help="mapped: which column is what")
    parser.add_argument("--options", nargs="+", default=[], metavar="NAME=VALUE", help="the data set's own options")
    return parser


def _asked(args: argparse.Namespace) -> AskedFiles:
    named = {flag: _assigned(flag, getattr(args, flag)) for flag in ("columns", "options")}
    files = tuple(args.files)
    return AskedFiles.build(files, args.dataset, args.split, named["columns"], named["options"], args.on_error)


def _assigned(flag: str, words: Sequence[str]) -> Mapping[str, str]:
    wrong = [word for word in words if not word.partition("=")[1]]
    if wrong:
        raise ConfigError(f"--{flag} {', '.join(wrong)}: expected NAME=VALUE")
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def _inspect(args: argparse.Namespace) -> int:
    from btrm.data.inspection import inspect, page

    facts = inspect(_asked(args), Limits(args.max_chars, args.max_tokens), args.tokenizer)
    width = min(shutil.get_terminal_size().columns, _MOST_COLUMNS)
    print(json.dumps(facts, ensure_ascii=False) if args.json else page(facts, width))
    return 0
