"""One checkpoint on one data set: which are shown, and what is shown of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from btrm.report.columns import COLUMNS, Column
from btrm.report.page.cell_charts import Chart, panels
from btrm.report.page.headline import Tile
from btrm.report.page.part_tables import part_tables, tails_table
from btrm.report.page.pooled import Pooled
from btrm.report.page.tables import Table, interval_text, number_cell
from btrm.report.page.values import number
from btrm.report.report_input import ReportInput, Row
from btrm.report.rows import OPTIMISTIC
from btrm.report.selection import is_optimistic

# told in the comparisons, and among the tails
_ELSEWHERE = frozenset({"p_value", "p_mcnemar", "mde", "pairs_needed", "seeds_needed", "margin_p50"})


@dataclass(frozen=True, slots=True)
class CellView:
    """One checkpoint on one data set."""

    title: str
    charts: list[Chart]
    numbers: list[Tile]
    tails: Table | None
    parts: list[Table]


def choose(tables: ReportInput, keys: Sequence[tuple[str, str]], most: int) -> list[tuple[str, str]]:
    """Return up to `most` (checkpoint, data set): the best, the baseline and the last, the others evenly spread."""
    first = [key for key in keys if key[0] == tables.best_checkpoint]
    first.sort(key=lambda key: key[1] != tables.best_dataset)
    last = [key for key in keys if tables.records and key[0] == tables.records[-1]["checkpoint"]]
    ahead = list(dict.fromkeys([*first, *(key for key in keys if key[0] == tables.baseline), *last]))[:most]
    others = [key for key in keys if key not in ahead]
    room = most - len(ahead)
    if len(others) > room:
        others = [others[round(i * (len(others) - 1) / max(1, room - 1))] for i in range(room)]
    return [*ahead, *dict.fromkeys(others)]


def cell_view(tables: ReportInput, pooled: Mapping[tuple[str, str], Pooled], key: tuple[str, str]) -> CellView:
    """Return what is shown of a cell, beside the baseline on the same data set."""
    checkpoint, dataset = key
    record: Row = next((r for r in tables.records if (r["checkpoint"], r["dataset"]) == key), {})
    baseline = str(record.get("baseline") or tables.baseline or "")
    other = pooled.get((baseline, dataset)) if baseline != checkpoint else None
    beware = f", {OPTIMISTIC}" if is_optimistic(record) else ""
    best = f" (best{beware})" if checkpoint == tables.best_checkpoint else ""
    parts = part_tables({checkpoint: pooled[key]})
    tails = tails_table([row for row in tables.evals if (row["checkpoint"], row["dataset"]) == key])
    return CellView(f"{checkpoint} · {dataset}{best}", panels(pooled[key], other), _numbers(record), tails, parts)


def _numbers(record: Row) -> list[Tile]:
    """Return the numbers that the summary's table has no room for, with their intervals."""
    found: list[Tile] = []
    for column in COLUMNS:
        if not _stands_alone(column, record):
            continue
        ends = interval_text(record.get(f"{column.name}_low"), record.get(f"{column.name}_high"))
        text = number_cell(record[column.name], column.decimals or 0).text
        found.append(Tile(column.name.replace("_", " "), f"{text} {ends}".strip(), ""))
    return found


def _stands_alone(column: Column, record: Row) -> bool:
    """Whether a column is a number of its own: wide, told, and no end of another one's interval."""
    name = column.name
    if column.decimals is None or not column.wide or name in _ELSEWHERE or name.endswith(("_low", "_high", "_std")):
        return False
    return not math.isnan(number(record.get(name)))
