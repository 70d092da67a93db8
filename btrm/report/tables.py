"""The summary's files: CSV of any records, the tidy long table, and the text for people."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from btrm.metrics.decisions import Comparison
from btrm.report.columns import chosen_columns, format_table
from btrm.report.rows import EvalRow

COMPARED = ("dataset", "kind", "a", "b", *(field.name for field in fields(Comparison)), "selected")
LONG = ("checkpoint", "dataset", "seed", "metric", "value", "prompt", "method")


def write_records(path: Path, records: Sequence[Mapping[str, Any]], header: Sequence[str] = ()) -> int:
    """Write records as a CSV; return their number. The header is the first record's keys where none is given.

    What is not defined is empty, numbers have six digits.
    """
    names = list(header) or list(records[0] if records else ())
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([_text(record.get(name)) for name in names] for record in records)
    return len(records)


def read_summary(path: Path) -> list[dict[str, str]]:
    """Return the rows of a summary.csv (or another one) as text, without pandas."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_long(path: Path, evals_of: Mapping[str, Iterable[EvalRow]]) -> int:
    """Write all numbers of all cells, a line each; return their number.

    `evals_of` has the cells of each run. Where there is one that is called "", lines do not tell the run.
    """
    count = 0
    told = [] if list(evals_of) == [""] else ["run"]
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(_csv_line([*told, *LONG]) + "\n")
        for run, evals in evals_of.items():
            for row in evals:
                lines = _long_lines(row, [run] if told else [])
                file.writelines(lines)
                count += len(lines)
    return count


def _long_lines(row: EvalRow, before: Sequence[str]) -> list[str]:
    """Return a cell's lines; what is the same in all of them is written once, for there are a million of them."""
    head = _csv_line([*before, *(row.get(name) for name in LONG[:3])])
    tail = _csv_line([row.get(name) for name in LONG[5:]])
    return [
        f"{head},{metric},{value:.6g},{tail}\n"
        for metric, value in row.items()
        if isinstance(value, int | float) and metric != "seed"
    ]


def _csv_line(values: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue()


def summary_text(title: str, records: Sequence[Mapping[str, Any]], columns: Sequence[str], notes: Sequence[str]) -> str:
    """Return summary.md: the notes, the table, and what its columns mean."""
    meanings = "\n".join(f"- `{column.name}`: {column.meaning}" for column in chosen_columns(records, columns))
    said = "".join(f"{note}\n\n" for note in notes)
    return f"# {title}\n\n{said}{format_table(records, columns)}\n\n{meanings}\n"


def _text(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return value
