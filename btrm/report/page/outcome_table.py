"""What became of the answers that have no score."""

from __future__ import annotations

import math
from collections.abc import Sequence

from btrm.report.page.minis import shares_bar, swatch
from btrm.report.page.tables import Cell, Head, Line, Table, text_cell
from btrm.report.page.values import mean_of, number
from btrm.report.report_input import ReportInput, Row


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
        cells = [Cell(f"{value:.2%}", f"{value:.6g}") for value in (*share.values(), together)]
        bar = Cell("", f"{together:.6g}", shares_bar(share, longest))
        lines.append(Line([text_cell(record["checkpoint"]), text_cell(record["dataset"]), *cells, bar]))
    return Table("Share of all answers without a score, by what went wrong; means over seeds.", heads, lines)


def _outcome(name: str) -> str:
    return name.removeprefix("rate_").replace("_", " ")


def _shares(tables: ReportInput, record: Row, names: Sequence[str]) -> dict[str, float]:
    key = (record["checkpoint"], record["dataset"])
    own = [row for row in tables.evals if (row["checkpoint"], row["dataset"]) == key]
    rates = {name: mean_of(own, name) for name in names}
    return {_outcome(name): rate if math.isfinite(rate) else 0.0 for name, rate in rates.items()}
