"""The summary: the columns of summary.md, and intervals as rows of a forest."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from btrm.metrics.decisions import rough
from btrm.report.columns import Column, chosen_columns
from btrm.report.page.minis import forest, forest_range
from btrm.report.page.tables import Cell, Head, Line, Table, interval_text, number_cell, p_cell, text_cell
from btrm.report.page.values import number
from btrm.report.report_input import ReportInput, Row
from btrm.report.selection import is_optimistic


def summary_table(tables: ReportInput) -> Table:
    """Return the summary: the columns of summary.md, where two ends of an interval become one row of a forest."""
    shown = chosen_columns(tables.records, tables.columns)
    names = {column.name for column in shown}
    ends = {f"{name}_{side}" for name in names for side in ("low", "high")}
    heads: list[Head] = []
    makers: list[Callable[[Row], Cell]] = []
    for column in shown:
        if column.name in ends or column.name == "selected":
            continue
        heads.append(Head(column.name, column.meaning, "" if column.decimals is None else "n"))
        makers.append(partial(_value_cell, column))
        if f"{column.name}_low" in names:
            reference = 0.0 if column.name == "difference" else 0.5
            bounds = forest_range([_interval(record, column.name) for record in tables.records], reference)
            heads.append(Head("95 % interval", f"of {column.name}; the upright line is {reference:g}", ""))
            makers.append(partial(_forest_cell, metric=column.name, bounds=bounds, reference=reference))
    lines = [Line([make(record) for make in makers], _mark(record), is_optimistic(record)) for record in tables.records]
    return Table("One row a checkpoint and data set; means over seeds.", heads, lines)


def _mark(record: Row) -> str:
    """Say by which data a row was selected, where it was."""
    selected = str(record.get("selected") or "")
    return f"best, selected {selected}" if selected.startswith("on ") else selected


def _value_cell(column: Column, row: Row) -> Cell:
    value = row.get(column.name)
    if column.decimals is None:
        return text_cell(value)
    if column.name.startswith("p_"):
        return p_cell(value)
    if column.name.endswith("_needed"):
        return Cell(rough(number(value)), number_cell(value).key)
    return number_cell(value, column.decimals, "+" if column.name == "difference" else "")


def _interval(row: Row, metric: str) -> tuple[float, float]:
    return number(row.get(f"{metric}_low")), number(row.get(f"{metric}_high"))


def _forest_cell(row: Row, metric: str, bounds: tuple[float, float], reference: float) -> Cell:
    low, high = _interval(row, metric)
    mean = number(row.get(metric))
    picture = forest(mean, low, high, bounds, reference) if math.isfinite(mean) else None
    sign = "+" if metric == "difference" else ""
    return Cell(interval_text(low, high, sign), number_cell(low).key, picture)
