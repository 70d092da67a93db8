"""The summary's columns: (name, function), one list for summary.csv, summary.md and the terminal."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from btrm.report.rows import SummaryRow


@dataclass(frozen=True, slots=True)
class Column:
    """A column: how to compute it, what it means, and how many decimals people see (None: text).

    `wide`: in summary.csv only.
    """

    name: str
    value: Callable[[SummaryRow], Any]
    meaning: str
    decimals: int | None = 3
    wide: bool = False


def _mean(metric: str) -> Callable[[SummaryRow], float]:
    return lambda row: row.mean(metric)


COLUMNS = (
    Column("checkpoint", lambda row: row.checkpoint, "what was judged", None),
    Column("split", lambda row: row.split, "which pairs", None),
    Column("step", lambda row: row.step, "training step", 0),
    Column("accuracy", _mean("accuracy"), "share of pairs where the preferred side scores higher; a tie counts 1/2"),
    Column("accuracy_std", lambda row: row.std("accuracy"), "sample standard deviation over seeds (ddof=1)"),
    Column("accuracy_low", lambda row: row.accuracy.low, "95 % bootstrap interval over pairs, from"),
    Column("accuracy_high", lambda row: row.accuracy.high, "... to"),
    Column("baseline", lambda row: row.baseline, "what the difference is to", None, wide=True),
    Column("difference", lambda row: row.difference, "accuracy less the baseline's"),
    Column("difference_low", lambda row: row.difference_interval.low, "95 % paired bootstrap interval, from"),
    Column("difference_high", lambda row: row.difference_interval.high, "... to"),
    Column("tie_rate", _mean("tie_rate"), "share of pairs with equal scores"),
    Column("nontie_accuracy", _mean("nontie_accuracy"), "accuracy over the other pairs"),
    Column("unparsed_rate", _mean("unparsed_rate"), "share of answers without a valid score"),
    Column("bt_log_loss", _mean("bt_log_loss"), "Bradley-Terry log-loss in nats"),
    Column("nontie_bt_log_loss", _mean("nontie_bt_log_loss"), "the same without ties", wide=True),
    Column("margin_q50", _mean("margin_q50"), "median margin", 1, wide=True),
    Column("n_pairs", lambda row: min(int(e["n_pairs"]) for e in row.evals), "pairs with a label", 0),
    Column("n_seeds", lambda row: len(row.evals), "judging seeds", 0),
    Column(
        "missing", lambda row: "; ".join(row.missing), "cells that other checkpoints have and this one has not", None
    ),
)


def as_records(rows: Sequence[SummaryRow]) -> list[dict[str, Any]]:
    """Return {column: value} of each row."""
    return [{column.name: column.value(row) for column in COLUMNS} for row in rows]


def read_summary(path: Path) -> list[dict[str, str]]:
    """Return the rows of a summary.csv as text, without pandas."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows of the summary (records, or summary.csv as read) as aligned Markdown; empty columns are left out."""
    shown = [column for column in COLUMNS if not column.wide and any(_cell(row, column) for row in rows)]
    body = [[_cell(row, column) for column in shown] for row in rows]
    widths = [max(len(column.name), *(len(line[i]) for line in body)) for i, column in enumerate(shown)]
    left = [column.decimals is None for column in shown]
    rule = ["-" * (width + 1) + ("-" if to_left else ":") for width, to_left in zip(widths, left, strict=True)]
    lines = [_line([column.name for column in shown], widths, left), f"|{'|'.join(rule)}|"]
    return "\n".join(lines + [_line(cells, widths, left) for cells in body])


def _line(cells: Sequence[str], widths: Sequence[int], left: Sequence[bool]) -> str:
    padded = [c.ljust(w) if to_left else c.rjust(w) for c, w, to_left in zip(cells, widths, left, strict=True)]
    return f"| {' | '.join(padded)} |"


def _cell(row: Mapping[str, Any], column: Column) -> str:
    """Write a value for people, nothing for what is not defined; numbers read from a CSV come as text."""
    value = row.get(column.name)
    if value is None or value == "":
        return ""
    if column.decimals is None:
        return str(value)
    number = float(value)
    return "" if math.isnan(number) else f"{number:.{column.decimals}f}"
