"""What became of the answers that have no score, and how much hangs on how they are counted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from btrm.report.page.minis import shares_bar, swatch
from btrm.report.page.tables import Cell, Head, Line, Table, number_cell, text_cell
from btrm.report.page.values import mean_of, number
from btrm.report.report_input import ReportInput, Row
from btrm.report.rows import OPTIMISTIC
from btrm.report.selection import is_optimistic

_WAYS = {
    "accuracy_unparsed_wrong": Head(
        "accuracy, if\u00a0wrong", "where an answer without a score takes the one that hurts most"
    ),
    "accuracy_unparsed_tie": Head("accuracy, if\u00a0tie", "where a pair with a side without a score counts as a tie"),
    "accuracy_unparsed_drop": Head("accuracy, if\u00a0dropped", "where such a pair is left out"),
}


def outcome_table(tables: ReportInput) -> Table | None:
    """Return what became of the answers that have no score, None where every answer has one."""
    names = sorted({key for row in tables.evals for key in row if key.startswith("rate_") and key != "rate_scored"})
    seen = [name for name in names if any(number(row.get(name)) > 0 for row in tables.evals)]
    if not seen:
        return None
    evals = [_evals_of(tables, record) for record in tables.records]
    shares = [_shares(own, seen) for own in evals]
    longest = max(sum(share.values()) for share in shares) or 1.0
    heads = [Head("checkpoint", look=""), Head("data\u00a0set", look="")]
    heads += [*(Head(_outcome(name), svg=swatch(order)) for order, name in enumerate(seen)), Head("together")]
    heads += [Head("by kind", f"full width: {longest:.2%} of the answers", ""), *_WAYS.values()]
    lines: list[Line] = []
    for record, own, share in zip(tables.records, evals, shares, strict=True):
        cells = [text_cell(record["checkpoint"]), text_cell(record["dataset"]), *_share_cells(share, longest)]
        beware = is_optimistic(record)
        accuracies = [number_cell(mean_of(own, way)) for way in _WAYS]
        lines.append(Line([*cells, *accuracies], OPTIMISTIC if beware else "", beware))
    caption = (
        "Share of all answers without a score, by what went wrong, and the accuracy under each way to count them; "
        "means over seeds."
    )
    return Table(caption, heads, lines)


def _share_cells(share: Mapping[str, float], longest: float) -> list[Cell]:
    together = sum(share.values())
    cells = [Cell(f"{value:.2%}", f"{value:.6g}") for value in (*share.values(), together)]
    return [*cells, Cell("", f"{together:.6g}", shares_bar(share, longest))]


def _outcome(name: str) -> str:
    return name.removeprefix("rate_").replace("_", " ")


def _evals_of(tables: ReportInput, record: Row) -> list[Row]:
    key = (record["checkpoint"], record["dataset"])
    return [row for row in tables.evals if (row["checkpoint"], row["dataset"]) == key]


def _shares(evals: Sequence[Row], names: Sequence[str]) -> dict[str, float]:
    rates = {name: mean_of(evals, name) for name in names}
    return {_outcome(name): rate if math.isfinite(rate) else 0.0 for name, rate in rates.items()}
