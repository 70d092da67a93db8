"""The summary's files: CSV of any records, the tidy long table, and the text for people."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from btrm.metrics.decisions import Comparison
from btrm.report.columns import chosen_columns, format_table
from btrm.report.rows import EvalRow

_CELL = ("checkpoint", "dataset", "seed", "prompt", "method")  # what tells a cell from others
COMPARED = ("dataset", "kind", "a", "b", *(field.name for field in fields(Comparison)))
LONG = ("checkpoint", "dataset", "seed", "metric", "value", "prompt", "method")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> int:
    """Write a CSV; what is not defined is empty, numbers have six digits. Return the number of rows."""
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for row in rows:
            writer.writerow([_text(value) for value in row])
            count += 1
    return count


def write_records(path: Path, records: Sequence[Mapping[str, Any]], header: Sequence[str] = ()) -> int:
    """Write records as a CSV; the header is the first record's keys where none is given."""
    names = list(header) or list(records[0] if records else ())
    return write_csv(path, names, ([record.get(name) for name in names] for record in records))


def read_summary(path: Path) -> list[dict[str, str]]:
    """Return the rows of a summary.csv (or another one) as text, without pandas."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def long_rows(evals: Iterable[EvalRow]) -> Iterator[tuple[Any, ...]]:
    """Yield (checkpoint, dataset, seed, metric, value, prompt, method) of all numbers of all cells."""
    for row in evals:
        checkpoint, dataset, seed, prompt, method = (row.get(name) for name in _CELL)
        for metric, value in row.items():
            if isinstance(value, int | float) and metric != "seed":
                yield checkpoint, dataset, seed, metric, value, prompt, method


def summary_text(title: str, records: Sequence[Mapping[str, Any]], columns: Sequence[str], notes: Sequence[str]) -> str:
    """Return summary.md: the notes, the table, and what its columns mean."""
    meanings = "\n".join(f"- `{column.name}`: {column.meaning}" for column in chosen_columns(records, columns))
    said = "".join(f"{note}\n\n" for note in notes)
    return f"# {title}\n\n{said}{format_table(records, columns)}\n\n{meanings}\n"


def _text(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return value
