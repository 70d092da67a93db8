"""Subsets, official scores, and the tails of margins and losses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from btrm.report.page.minis import forest, forest_range
from btrm.report.page.pooled import Part, Pooled
from btrm.report.page.tables import Cell, Head, Line, Table, interval_text, number_cell, text_cell
from btrm.report.page.values import mean_of
from btrm.report.report_input import Row


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
    return Cell(text, f"{part.value:.6g}", picture)


def part_tables(pooled: Mapping[str, Pooled], about: str = "") -> list[Table]:
    """Return the tables of subsets and of official scores that there is anything for; `about` heads their captions."""
    subsets = {name: one.subsets for name, one in pooled.items()}
    official = {name: one.official for name, one in pooled.items()}
    found = (
        parts_table(f"{about}Accuracy of subsets, 95 % intervals.", "subset", subsets),
        parts_table(f"{about}The benchmark's own scores.", "score", official),
    )
    return [table for table in found if table is not None]


_PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
_TAILS = {"margin": "margin", "margin_correct": "if right", "margin_wrong": "if wrong", "loss": "loss"}


def tails_table(evals: Sequence[Row]) -> Table | None:
    """Return the percentiles of margins and losses, means over seeds; None where no evaluation tells them."""
    told = [name for name in _TAILS if any(f"{name}_p50" in row for row in evals)]
    if not told:
        return None
    heads = [Head("percentile", look=""), *(Head(_TAILS[name]) for name in told)]
    lines = [
        Line([Cell(f"p{p}", str(p)), *(number_cell(mean_of(evals, f"{name}_p{p}"), 2) for name in told)])
        for p in _PERCENTILES
    ]
    return Table("Margins (all, right, wrong pairs) and losses in nats.", heads, lines)
