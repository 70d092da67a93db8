"""`btrm data inspect|convert`: what a file of preferences holds, and the same pairs for another trainer."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from btrm.config import ConfigError
from btrm.data.asked_files import AskedFiles
from btrm.data.convert import TARGETS, Conversion, convert, default_out
from btrm.data.detect import AUTO
from btrm.data.inspection import inspect, page
from btrm.data.sources import SOURCES
from btrm.data.tally import Limits
from btrm.prompts import get_prompt

_MOST_COLUMNS = 120


def main(argv: Sequence[str]) -> int:
    """Run `btrm data …`; return its exit status. Raises ConfigError for a wrong request, a bad row or a full disk."""
    args = _parser().parse_args(argv or ["--help"])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        return args.function(args)
    except BrokenPipeError:  # `btrm data inspect F | head`: the caller knows what to do
        raise
    except OSError as error:
        raise ConfigError(str(error)) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="btrm data", description="Files of preferences: what they hold, other forms.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    inspect = _command(commands.add_parser, "inspect", "format, labels, duplicates, lengths and three pairs of a file")
    inspect.set_defaults(function=_inspect)
    inspect.add_argument("--json", action="store_true", help="one JSON object instead of the page")
    inspect.add_argument("--tokenizer", type=Path, metavar="DIR", help="count tokens too, with this model's tokenizer")
    inspect.add_argument("--max-chars", type=int, default=Limits().characters, help="over-long response (10000)")
    inspect.add_argument("--max-tokens", type=int, default=Limits().tokens, help="over-long with its context (4096)")
    inspect.add_argument("--on-error", choices=("raise", "skip"), default="skip", help="at a malformed row (skip)")
    sources = commands.add_parser("list", help="the data sets that are known", description="The data sets by name.")
    sources.set_defaults(function=_list)
    convert = _command(commands.add_parser, "convert", "write a file's pairs in the form of another trainer")
    convert.set_defaults(function=_convert)
    convert.add_argument("--to", required=True, choices=TARGETS, help="whose form")
    convert.add_argument("--out", type=Path, metavar="F", help="the file to write (default: here, by FILE's name)")
    convert.add_argument("--prompt", help="btrm: write pointwise rows with this prompt too")
    convert.add_argument("--force", action="store_true", help="overwrite what is there")
    convert.add_argument("--on-error", choices=("raise", "skip"), default="raise", help="at a malformed row (raise)")
    return parser


def _list(_: argparse.Namespace) -> int:
    width = max(map(len, SOURCES)) + 2
    for name, source in SOURCES.items():
        parts = [f"hub {source.hub.name}" if source.hub else "no hub", _words("splits", source.splits)]
        parts += [_words("options", source.options), f"prompt {source.prompt}" if source.prompt else ""]
        print(f"{name:<{width}}{'; '.join(part for part in parts if part) or 'files'}")
    return 0


def _words(what: str, words: Sequence[str]) -> str:
    return f"{what} {', '.join(words)}" if words else ""


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
    facts = inspect(_asked(args), Limits(args.max_chars, args.max_tokens), args.tokenizer)
    width = min(shutil.get_terminal_size().columns, _MOST_COLUMNS)
    print(json.dumps(facts, ensure_ascii=False) if args.json else page(facts, width))
    return 0


def _convert(args: argparse.Namespace) -> int:
    asked = _asked(args)
    out = args.out or default_out(args.files[0], args.to)
    plan = Conversion(asked, args.to, out, args.force, get_prompt(args.prompt) if args.prompt else None)
    counts = convert(plan)
    print(f"{out}: {counts.pop('rows'):,} rows of {asked.dataset}, as {args.to}")
    if plan.prompt is not None:
        print(f"{plan.rows}: their pointwise rows, prompt {plan.prompt.name}")
    left = ", ".join(f"{n:,} {reason}" for reason, n in counts.most_common())
    print(f"{plan.dropped}: left out {left}" if left else f"{plan.dropped}: empty, nothing was left out")
    return 0
