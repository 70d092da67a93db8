"""`btrm summarize DIR...`: one table of all runs below some folders."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from btrm.config import ConfigError, nearest
from btrm.report.aggregate import Aggregated, aggregate_rows, read_runs
from btrm.report.baseline_run import compare_runs
from btrm.report.columns import as_records, check_columns, format_table, sort_records
from btrm.report.tables import summary_text, write_long, write_records

_SHOWN = 20  # what was left out, line by line on the terminal


def main(args: argparse.Namespace) -> int:
    """Print the table, and write it where --out says; raise ConfigError for what is not there."""
    columns = [name.strip() for name in str(args.columns).split(",") if name.strip()]
    check_columns([*columns, *([str(args.sort).removeprefix("-")] if args.sort else [])], "--columns, --sort:")
    found = read_runs(args.dirs)
    known = {str(row["dataset"]) for run in found.runs for row in run.evals}
    if args.select_on and args.select_on not in known:
        raise ConfigError(f"--select-on {args.select_on!r}: no such data set{nearest(args.select_on, known)}")
    rows = aggregate_rows(found.runs, args.select_on)
    if args.baseline:
        rows = compare_runs(found.runs, rows, args.baseline)
    records = sort_records(as_records(rows), args.sort)
    print(format_table(records, columns))
    print(f"\n{_counted(found)}")
    for line in _left_out(found.left_out):
        print(line)
    if args.out:
        _write(args.out, found, records, columns)
        print(f"{args.out}/summary.csv, summary.md, summary_long.csv")
    return 0


def _counted(found: Aggregated) -> str:
    left = f"; {len(found.left_out)} left out, or read in part" if found.left_out else ""
    cells, runs = found.cells, len(found.runs)
    return f"{cells:,} cell{'' if cells == 1 else 's'} of {runs:,} run{'' if runs == 1 else 's'}{left}"


def _left_out(lines: Sequence[str]) -> Iterator[str]:
    for line in lines[:_SHOWN]:
        yield f"  left out: {line}"
    if len(lines) > _SHOWN:
        yield f"  and {len(lines) - _SHOWN} more: summary.md names them (--out)"


def _write(out: Path, found: Aggregated, records: list[dict[str, Any]], columns: Sequence[str]) -> None:
    """Write the tables, each by one rename."""
    out.mkdir(parents=True, exist_ok=True)
    notes = [_counted(found), *(f"- left out: {line}" for line in found.left_out)]
    with tempfile.TemporaryDirectory(prefix=".summary", dir=out) as scratch:
        there = Path(scratch)
        write_records(there / "summary.csv", records)
        write_long(there / "summary_long.csv", {run.name: run.evals for run in found.runs})
        text = summary_text("Runs", records, columns, ["\n".join(notes)])
        (there / "summary.md").write_text(text, encoding="utf-8")
        for path in sorted(there.iterdir()):
            shutil.move(path, out / path.name)
