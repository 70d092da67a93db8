"""Everything that the page's template asks for, by the names that it uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from btrm.report.columns import COLUMNS, Column
from btrm.report.page.cells import cell_view, choose
from btrm.report.page.comparison_table import comparison_table
from btrm.report.page.curves import curves_of
from btrm.report.page.headline import sentence_of, tiles
from btrm.report.page.made import few_contexts, how_it_was_made
from btrm.report.page.outcome_table import outcome_table
from btrm.report.page.part_tables import part_tables
from btrm.report.page.pooled import Pooled, pool
from btrm.report.page.reading import reading
from btrm.report.page.summary_table import summary_table
from btrm.report.page.tables import Table
from btrm.report.report_input import ReportInput, Row
from btrm.report.rows import judge_names, key_of
from btrm.report.selection import is_optimistic

_CELLS = 120  # checkpoints on data sets that are shown: 2 to 3 MB of a page that opens at once
_COLUMNS = 6  # checkpoints beside one another in a table of subsets
_KINDS = {
    "baseline": "With the baseline",
    "previous": "With the checkpoint before",
    "best": "The best with all others",
}


@dataclass(frozen=True, slots=True)
class Group:
    """Comparisons of one kind."""

    title: str
    table: Table


def page_parts(tables: ReportInput) -> dict[str, Any]:
    """Return what the template reads."""
    summary = summary_table(tables)
    tables = named(tables)
    pooled = pool(tables.details)
    datasets = list(dict.fromkeys(str(record["dataset"]) for record in tables.records))
    chosen = choose(tables, list(pooled), _CELLS)
    parts = _parts(tables, pooled, datasets)
    parts_for = {
        "best": sentence_of(tables),
        "own_test_set": tables.own_test_set,
        "few_contexts": few_contexts(tables.evals),
        "counts": _counts(tables, datasets),
        "tiles": tiles(tables),
        "summary": summary,
        "curves": [curves for dataset in datasets if (curves := curves_of(tables, dataset))],
        "comparisons": _comparisons(tables.comparisons),
        "cells": [cell_view(tables, pooled, key) for key in chosen],
        "cells_left_out": _left_out(len(pooled), len(chosen)),
        "parts": parts,
        "outcomes": outcome_table(tables),
        "worst": reading(tables.worst),
        "made": how_it_was_made(tables),
        "glossary": [column for column in COLUMNS if _explained(column, tables.records)],
    }
    return {**parts_for, "contents": _contents(parts_for)}


def named(tables: ReportInput) -> ReportInput:
    """Return the tables with the names that judges go by: a checkpoint's, with prompt and method where these differ."""
    names = judge_names(dict.fromkeys(key_of(row) for row in tables.evals))
    names = {part: name for key, name in names.items() for part in ((key.checkpoint, key.prompt, ""), key)}

    def rename(rows: Sequence[Row]) -> list[Row]:
        return [{**row, "checkpoint": names.get(key_of(row), str(row["checkpoint"]))} for row in rows]

    return replace(tables, records=rename(tables.records), evals=rename(tables.evals), details=rename(tables.details))


def _left_out(total: int, shown: int) -> str:
    return f"{shown} of {total}, evenly spread; the others are in evaluate/details.jsonl." if shown < total else ""


def _contents(parts: Mapping[str, Any]) -> list[tuple[str, str]]:
    names = {
        "summary": "Summary",
        "curves": "Learning curves",
        "comparisons": "Comparisons",
        "cells": "Each checkpoint",
        "parts": "Subsets",
        "outcomes": "Without a score",
        "worst": "Worst pairs",
        "made": "How it was made",
    }
    ids = {"cells": "checkpoints"}
    return [(ids.get(key, key), name) for key, name in names.items() if parts[key] or key == "outcomes"]


def _explained(column: Column, records: Sequence[Row]) -> bool:
    """Whether the glossary holds a column: one that says anything, and is no end or spread of another one."""
    if column.name.endswith(("_low", "_high", "_std")) and column.name != "accuracy_std":
        return False
    return any(record.get(column.name) not in (None, "") for record in records)


def _counts(tables: ReportInput, datasets: Sequence[str]) -> str:
    checkpoints = len({record["checkpoint"] for record in tables.records})
    seeds = len({row["seed"] for row in tables.evals})
    judgements = sum(int(row.get("n_judgements") or 0) for row in tables.evals)
    counted = ((checkpoints, "checkpoint"), (len(datasets), "data set"), (seeds, "seed"), (judgements, "judgement"))
    return " · ".join(f"{n:,} {what}{'' if n == 1 else 's'}" for n, what in counted if n)


def _comparisons(rows: Sequence[Row]) -> list[Group]:
    kinds = list(dict.fromkeys(str(row.get("kind", "")) for row in rows))
    groups = {kind: [row for row in rows if str(row.get("kind", "")) == kind] for kind in kinds}
    return [Group(_KINDS.get(kind, kind or "All"), comparison_table(own)) for kind, own in groups.items()]


def _parts(tables: ReportInput, pooled: Mapping[tuple[str, str], Pooled], datasets: Sequence[str]) -> list[Table]:
    """Return subsets and official scores with some checkpoints beside one another, a table a data set."""
    found: list[Table] = []
    chosen = {(record["checkpoint"], record["dataset"]) for record in tables.records if is_optimistic(record)}
    for dataset in datasets:
        keys = choose(tables, [key for key in pooled if key[1] == dataset], _COLUMNS)
        own = {f"{key[0]}{' (optimistic)' if key in chosen else ''}": one for key, one in pooled.items() if key in keys}
        found += part_tables(own, f"{dataset}: ") if len(own) > 1 else []
    return found
