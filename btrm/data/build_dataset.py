"""The pointwise builder: one file of rows from a preference set, two rows a pair, side 0 then side 1.

    python -m btrm.data.build_dataset --dataset anthropic_hh --split train --prompt hh_score100_v1 --out rows.jsonl

Rows hold messages, pair_id, label_id, side and preferred_side; --add-meta adds source, split and the pair's metadata.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from btrm.config import ConfigError
from btrm.data.detect import AUTO, resolve
from btrm.data.items import Dropped, Query
from btrm.data.reading import BUFFER
from btrm.data.rows import RowEncoder
from btrm.data.sources import SOURCES, Sift, check_query, get_source
from btrm.environment import load_environment
from btrm.progress import progress
from btrm.prompts import PromptSpec, get_prompt
from btrm.publishing import replace

_LOG = logging.getLogger(__name__)
_SUMMARY = "Build pointwise rows from a preference set: two rows a pair, side 0 then side 1."
_ASSIGNED = ("columns", "options")


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """One call of the builder, checked."""

    dataset: str
    query: Query
    prompt: PromptSpec
    out: Path
    dropped: Path
    add_meta: bool
    on_error: str


def build_dataset(plan: BuildPlan) -> dict[str, int]:
    """Stream the rows to `plan.out` and the drops beside it, each published by one rename; return the counts.

    Raises ConfigError for a malformed row (on_error raise); then neither file is touched. Ties have no row.
    """
    source = check_query(plan.dataset, plan.query)
    encoder = RowEncoder(plan.prompt, plan.add_meta)
    plan.out.parent.mkdir(parents=True, exist_ok=True)
    parts = [path.with_name(f".{path.name}.{os.getpid()}.part") for path in (plan.out, plan.dropped)]
    try:
        with parts[0].open("wb", buffering=BUFFER) as rows, parts[1].open("w", encoding="utf-8") as drops:

            def on_drop(item: Dropped) -> None:
                drops.write(json.dumps(item.to_json(), ensure_ascii=False) + "\n")

            sift = Sift(plan.on_error, plan.query.limit, on_drop)
            pairs = sift.pairs(source.read(plan.query))
            rows.writelines(map(encoder.lines, progress(pairs, plan.query.limit, "build_dataset", "pair")))
        sift.check_any(f"dataset {plan.dataset}, split {plan.query.split}")
        replace(parts[1], plan.dropped)
        replace(parts[0], plan.out)  # last: where the rows are, the drops are
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    return {**sift.counts, "rows": 2 * (sift.counts["pairs"] - sift.counts["ties"])}


def parse_args(argv: Sequence[str]) -> BuildPlan:
    """Read the command line; flags may be spelt with underscores. Raises ConfigError that names all bad values."""
    parser = argparse.ArgumentParser(prog="python -m btrm.data.build_dataset", description=_SUMMARY)
    parser.add_argument("--dataset", required=True, help=f"{', '.join((*SOURCES, AUTO))}, or FILE.py:function")
    parser.add_argument("--split", default="train", help="split to read (default: train)")
    parser.add_argument("--prompt", help="prompt of the rows (default: the data set's usual one)")
    parser.add_argument("--out", type=Path, required=True, help="the JSONL file to write")
    parser.add_argument("--limit", type=int, help="most pairs to take (default: all; toy needs it)")
    parser.add_argument("--add-meta", action="store_true", help="add source, split and metadata as columns")
    parser.add_argument("--data-files", type=Path, nargs="+", default=[], help="original files instead of the hub")
    parser.add_argument("--columns", nargs="+", default=[], metavar="ROLE=COLUMN", help="mapped: which column is what")
    parser.add_argument("--options", nargs="+", default=[], metavar="NAME=VALUE", help="the data set's own options")
    parser.add_argument("--on-error", choices=["raise", "skip"], default="raise", help="at a malformed row")
    parser.add_argument("--dropped", type=Path, help="side file of rows left out (default: OUT.dropped.jsonl)")
    parser.add_argument("--seed", type=int, default=0, help="toy: seed of the generator")
    parser.add_argument("--label-noise", type=float, default=0.0, help="toy: share of training labels flipped")
    return _plan(parser.parse_args(list(_hyphens(argv))))


def _plan(args: argparse.Namespace) -> BuildPlan:
    args.dataset = resolve(args.dataset, tuple(args.data_files))
    prompt = str(args.prompt or get_source(args.dataset).prompt or "")
    problems: list[str] = []
    if not prompt:
        problems.append(f"--prompt: required for dataset {args.dataset}")
    if args.dataset == "toy" and args.limit is None:
        problems.append("--limit: the toy set has no end; say how many pairs")
    if args.limit is not None and args.limit < 1:
        problems.append(f"--limit: expected at least 1, got {args.limit}")
    named = {flag: dict(_assignment(flag, text, problems) for text in getattr(args, flag)) for flag in _ASSIGNED}
    if problems:
        raise ConfigError("\n".join(problems))
    files = tuple(args.data_files)
    query = Query(args.split, args.limit, files, named["columns"], named["options"], args.seed, args.label_noise)
    dropped = args.dropped or args.out.with_name(args.out.name + ".dropped.jsonl")
    return BuildPlan(args.dataset, query, get_prompt(prompt), args.out, dropped, args.add_meta, args.on_error)


def _assignment(flag: str, text: str, problems: list[str]) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        problems.append(f"--{flag} {text!r}: expected NAME=VALUE")
    return name, value


def _hyphens(argv: Sequence[str]) -> Iterator[str]:
    """Spell flags as the parser knows them: --add_meta becomes --add-meta; values keep their underscores."""
    for word in argv:
        flag, equals, value = word.partition("=")
        yield flag.replace("_", "-") + equals + value if word.startswith("--") else word


def main(argv: Sequence[str] | None = None) -> int:
    """Run the builder; print the counts as one JSON line on standard output, errors as text on standard error."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        for note in load_environment(os.environ, Path(".env")):
            _LOG.info("%s", note)
        plan = parse_args(sys.argv[1:] if argv is None else argv)
        counts = build_dataset(plan)
    except (ConfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    dropped = sum(n for reason, n in counts.items() if reason.startswith("dropped_"))
    _LOG.info("%s: %d rows; %d source rows left out (%s)", plan.out, counts["rows"], dropped, plan.dropped)
    print(json.dumps({"out": str(plan.out), **counts}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
