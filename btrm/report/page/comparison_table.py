"""Paired comparisons, with a verdict in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

from btrm.metrics.decisions import more_in_words, rough
from btrm.report.page.minis import forest, forest_range
from btrm.report.page.tables import Cell, Head, Line, Table, interval_text, number_cell, p_cell, text_cell
from btrm.report.page.values import number
from btrm.report.report_input import Row
from btrm.report.selection import is_optimistic

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
        said = f"{row['a' if difference > 0 else 'b']} is better"
        return f"{said} (optimistic: selected on these data)" if is_optimistic(row) else said
    if number(row.get("p_bootstrap")) < 0.05:
        return "told apart by itself, not after Holm"
    seeds = number(row.get("seeds_needed"))
    more = [more_in_words(number(row.get("pairs_needed")))]
    more += [f"{rough(seeds)} more seeds might" if math.isfinite(seeds) and seeds > 0 else ""]
    return "; ".join(["not told apart", *filter(None, more)])
