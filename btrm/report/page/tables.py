"""The page's tables: cells with what people read, what a click sorts by, and small pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from btrm.report.columns import Column, chosen_columns
from btrm.report.page.minis import forest, forest_range, shares_bar, swatch
from btrm.report.page.pooled import Part, Pooled
from btrm.report.page.svg import Svg
from btrm.report.page.values import minus, number
from btrm.report.report_input import ReportInput, Row


@dataclass(frozen=True, slots=True)
class Head:
    """A column's title, what it means, and its looks: n (numbers), w (wide text), or none; `svg` before the title."""

    name: str
    meaning: str = ""
    look: str = "n"
    svg: Svg | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """What is read, and what is sorted by (empty: goes last); `svg` beside the text."""

    text: str
    key: str = ""
    svg: Svg | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One row; `mark` is a word that the row is marked with, and its looks."""

    cells: list[Cell]
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table with what it shows, in words."""

    caption: str
    heads: list[Head]
    lines: list[Line] = field(default_factory=list[Line])


def text_cell(value: Any) -> Cell:
    """Return a cell of text."""
    text = "" if value is None else str(value)
    return Cell(text, text)


def number_cell(value: Any, decimals: int = 3, sign: str = "") -> Cell:
    """Return a cell of a number, empty for what is not defined."""
    amount = number(value)
    if math.isnan(amount):
        return Cell("")
    if math.isinf(amount):
        return Cell("∞", "Infinity")
    return Cell(minus(f"{amount:{sign},.{decimals}f}"), f"{amount:.9g}")


def p_cell(value: Any) -> Cell:
    """Return a p-value, never as nothing."""
    p = number(value)
    return number_cell(p) if math.isnan(p) or p >= 0.001 else Cell("<0.001", f"{p:.9g}")


def interval_text(low: Any, high: Any, sign: str = "") -> str:
    """Write an interval, nothing where there is none."""
    ends = [number(low), number(high)]
    return minus(f"[{ends[0]:{sign}.3f}, {ends[1]:{sign}.3f}]") if all(map(math.isfinite, ends)) else ""


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
    lines = [Line([make(record) for make in makers], _mark(record)) for record in tables.records]
    return Table("One row a checkpoint and data set; means over seeds.", heads, lines)


def _mark(record: Row) -> str:
    """Say by which data a row was selected, where it was."""
    selected = str(record.get("selected") or "")
    return f"best, selected {selected}" if selected.startswith("on ") else selected


def _value_cell(column: Column, row: Row) -> Cell:
    value = row.get(column.name)
    if column.decimals is None:
        return text_cell(value)
    return p_cell(value) if column.name.startswith("p_") else number_cell(value, column.decimals)


def _interval(row: Row, metric: str) -> tuple[float, float]:
    return number(row.get(f"{metric}_low")), number(row.get(f"{metric}_high"))


def _forest_cell(row: Row, metric: str, bounds: tuple[float, float], reference: float) -> Cell:
    low, high = _interval(row, metric)
    mean = number(row.get(metric))
    picture = forest(mean, low, high, bounds, reference) if math.isfinite(mean) else None
    return Cell(interval_text(low, high), number_cell(low).key, picture)


_COMPARED = (
    Head("data\u00a0set", "which pairs", ""),
    Head("a", "the checkpoint ...", ""),
    Head("b", "... less this one, on the same pairs", ""),
    Head("a\u00a0−\u00a0b", "difference of the accuracies"),
    Head("95 % interval", "paired bootstrap over contexts; the upright line is no difference", ""),
    Head("p", "two-sided, paired bootstrap"),
    Head("p (McNemar)", "mid-p, over contexts that one of the two judges better"),
    Head("p (Holm)", "the bootstrap's p, adjusted for all comparisons that were made together"),
    Head("detectable", "the least difference that is found with 80 % power on these pairs"),
    Head("verdict", "at 5 % after Holm; else what would tell them apart", "w"),
)


def comparison_table(rows: Sequence[Row]) -> Table:
    """Return the paired comparisons, with a verdict in words."""
    bounds = forest_range([_interval_of(row) for row in rows], 0.0)
    lines: list[Line] = []
    for row in rows:
        mean, (low, high) = number(row.get("difference")), _interval_of(row)
        picture = forest(mean, low, high, bounds, 0.0) if math.isfinite(mean) else None
        interval = Cell(interval_text(low, high, "+"), number_cell(low).key, picture)
        names = [text_cell(row.get(key)) for key in ("dataset", "a", "b")]
        tests = [p_cell(row.get(key)) for key in ("p_bootstrap", "p_mcnemar", "p_holm")]
        found = [number_cell(mean, 3, "+"), interval, *tests, number_cell(row.get("mde"))]
        lines.append(Line([*names, *found, text_cell(verdict(row))]))
    return Table("Accuracies on the same pairs.", list(_COMPARED), lines)


def _interval_of(row: Row) -> tuple[float, float]:
    return number(row.get("low")), number(row.get("high"))


def verdict(row: Row) -> str:
    """Say which of the two is better, or what it would take to tell."""
    p, difference = number(row.get("p_holm")), number(row.get("difference"))
    p = number(row.get("p_bootstrap")) if math.isnan(p) else p
    if math.isnan(p) or math.isnan(difference):
        return "no pairs in common"
    if p < 0.05:
        return f"{row['a' if difference > 0 else 'b']} is better"
    needs = [(number(row.get("pairs_needed")), "pairs"), (number(row.get("seeds_needed")), "seeds")]
    more = [f"{n:,.0f} more {what}" for n, what in needs if math.isfinite(n) and n > 0]
    return "not told apart" + (f"; {' or '.join(more)} might" if more else "")


def outcome_table(tables: ReportInput) -> Table | None:
    """Return what became of the answers that have no score, None where every answer has one."""
    names = sorted({key for row in tables.evals for key in row if key.startswith("rate_") and key != "rate_scored"})
    seen = [name for name in names if any(number(row.get(name)) > 0 for row in tables.evals)]
    if not seen:
        return None
    shares = [_shares(tables, record, seen) for record in tables.records]
    longest = max(sum(share.values()) for share in shares) or 1.0
    heads = [Head("checkpoint", look=""), Head("data\u00a0set", look="")]
    heads += [*(Head(_outcome(name), svg=swatch(order)) for order, name in enumerate(seen)), Head("together")]
    heads.append(Head("by kind", f"full width: {longest:.2%} of the answers", ""))
    lines: list[Line] = []
    for record, share in zip(tables.records, shares, strict=True):
        together = sum(share.values())
        cells = [Cell(f"{value:.2%}", f"{value:.9g}") for value in (*share.values(), together)]
        bar = Cell("", f"{together:.9g}", shares_bar(share, longest))
        lines.append(Line([text_cell(record["checkpoint"]), text_cell(record["dataset"]), *cells, bar]))
    return Table("Share of all answers without a score, by what went wrong; means over seeds.", heads, lines)


def _outcome(name: str) -> str:
    return name.removeprefix("rate_").replace("_", " ")


def _shares(tables: ReportInput, record: Row, names: Sequence[str]) -> dict[str, float]:
    key = (record["checkpoint"], record["dataset"])
    own = [row for row in tables.evals if (row["checkpoint"], row["dataset"]) == key]
    rates = {name: _mean(own, name) for name in names}
    return {_outcome(name): rate if math.isfinite(rate) else 0.0 for name, rate in rates.items()}


def parts_table(caption: str, what: str, parts_of: Mapping[str, list[Part]]) -> Table | None:
    """Return subsets or official scores: a row each, a column a checkpoint, a forest where there is only one."""
    names = list(dict.fromkeys(part.name for parts in parts_of.values() for part in parts))
    if not names:
        return None
    by_name = {checkpoint: {part.name: part for part in parts} for checkpoint, parts in parts_of.items()}
    every = [part for parts in parts_of.values() for part in parts]
    bounds = forest_range([(part.low, part.high) for part in every], 0.5)
    drawn = bounds if len(parts_of) == 1 and any(math.isfinite(part.low) for part in every) else None
    heads = [Head(what, look=""), Head("n"), *(Head(checkpoint) for checkpoint in parts_of)]
    lines: list[Line] = []
    for name in names:
        parts = [by_name[checkpoint].get(name) for checkpoint in parts_of]
        most = max((part.n for part in parts if part is not None), default=math.nan)
        lines.append(Line([text_cell(name), number_cell(most, 0), *(_part_cell(part, drawn) for part in parts)]))
    return Table(caption, heads, lines)


def _part_cell(part: Part | None, bounds: tuple[float, float] | None) -> Cell:
    if part is None or math.isnan(part.value):
        return Cell("")
    text = f"{part.value:.3f} {interval_text(part.low, part.high)}".strip()
    picture = forest(part.value, part.low, part.high, bounds, 0.5) if bounds is not None else None
    return Cell(text, f"{part.value:.9g}", picture)


_PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
_TAILS = {"margin": "margin", "margin_correct": "if right", "margin_wrong": "if wrong", "loss": "loss"}


def tails_table(evals: Sequence[Row]) -> Table | None:
    """Return the percentiles of margins and losses, means over seeds; None where no evaluation tells them."""
    told = [name for name in _TAILS if any(f"{name}_p50" in row for row in evals)]
    if not told:
        return None
    heads = [Head("percentile", look=""), *(Head(_TAILS[name]) for name in told)]
    lines = [
        Line([Cell(f"p{p}", str(p)), *(number_cell(_mean(evals, f"{name}_p{p}"), 2) for name in told)])
        for p in _PERCENTILES
    ]
    return Table("Margins (all, right, wrong pairs) and losses in nats.", heads, lines)


def _mean(evals: Sequence[Row], key: str) -> float:
    known = [value for row in evals if math.isfinite(value := number(row.get(key)))]
    return sum(known) / len(known) if known else math.nan


def part_tables(pooled: Mapping[str, Pooled], about: str = "") -> list[Table]:
    """Return the tables of subsets and of official scores that there is anything for; `about` heads their captions."""
    subsets = {name: one.subsets for name, one in pooled.items()}
    official = {name: one.official for name, one in pooled.items()}
    found = (
        parts_table(f"{about}Accuracy of subsets, 95 % intervals.", "subset", subsets),
        parts_table(f"{about}The benchmark's own scores.", "score", official),
    )
    return [table for table in found if table is not None]
