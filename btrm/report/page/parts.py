"""Everything that the page's template asks for, by the names that it uses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from btrm.report.columns import COLUMNS, Column
from btrm.report.page.cell_charts import Chart, panels
from btrm.report.page.charts import ACCURACY, SMALL, learning_curve, spots
from btrm.report.page.made import how_it_was_made
from btrm.report.page.pooled import Pooled, pool
from btrm.report.page.reading import reading
from btrm.report.page.svg import Frame, Svg
from btrm.report.page.tables import (
    Table,
    comparison_table,
    interval_text,
    number_cell,
    outcome_table,
    part_tables,
    summary_table,
    tails_table,
)
from btrm.report.page.values import number
from btrm.report.report_input import ReportInput, Row
from btrm.report.rows import judge_names, key_of

_CELLS = 160  # panels of (checkpoint, data set): more would not open quickly
_COLUMNS = 6  # checkpoints beside one another in a table of subsets
_LARGE = Frame((0, 1), (0, 1), 560, 330)
_SMALL = Frame((0, 1), (0, 1), 290, 180)
_KINDS = {
    "baseline": "With the baseline",
    "previous": "With the checkpoint before",
    "best": "The best with all others",
}


@dataclass(frozen=True, slots=True)
class Tile:
    """A number of the headline, what it is, and what stands under it."""

    name: str
    value: str
    under: str


@dataclass(frozen=True, slots=True)
class Titled:
    """A picture with its title."""

    title: str
    svg: Svg


@dataclass(frozen=True, slots=True)
class Curves:
    """The learning curves of one data set."""

    dataset: str
    accuracy: Titled
    smalls: list[Titled]


@dataclass(frozen=True, slots=True)
class Group:
    """Comparisons of one kind."""

    title: str
    table: Table


@dataclass(frozen=True, slots=True)
class CellView:
    """One checkpoint on one data set."""

    title: str
    charts: list[Chart]
    numbers: list[Tile]
    tails: Table | None
    parts: list[Table]


def page_parts(tables: ReportInput) -> dict[str, Any]:
    """Return what the template reads."""
    tables = named(tables)
    pooled = pool(tables.details)
    datasets = list(dict.fromkeys(str(record["dataset"]) for record in tables.records))
    chosen = choose(tables, list(pooled), _CELLS)
    parts = _parts(tables, pooled, datasets)
    parts_for = {
        "best": tables.best,
        "own_test_set": tables.own_test_set,
        "counts": _counts(tables, datasets),
        "tiles": _tiles(tables),
        "summary": summary_table(tables),
        "curves": [curves for dataset in datasets if (curves := _curves(tables, dataset))],
        "comparisons": _comparisons(tables.comparisons),
        "cells": [_cell(tables, pooled, key) for key in chosen],
        "cells_left_out": _left_out(len(pooled), len(chosen)),
        "parts": parts,
        "outcomes": outcome_table(tables),
        "worst": reading(tables.worst),
        "made": how_it_was_made(tables),
        "glossary": [column for column in COLUMNS if any(column.name in record for record in tables.records)],
    }
    return {**parts_for, "contents": _contents(parts_for)}


def named(tables: ReportInput) -> ReportInput:
    """Return the tables with the names that judges go by: a checkpoint's, with prompt and method where these differ."""
    names = {key[:2]: name for key, name in judge_names(dict.fromkeys(key_of(row) for row in tables.evals)).items()}

    def rename(rows: Sequence[Row]) -> list[Row]:
        return [{**row, "checkpoint": names.get(key_of(row)[:2], str(row["checkpoint"]))} for row in rows]

    return replace(tables, records=rename(tables.records), evals=rename(tables.evals), details=rename(tables.details))


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


def _counts(tables: ReportInput, datasets: Sequence[str]) -> str:
    checkpoints = len({record["checkpoint"] for record in tables.records})
    seeds = len({row["seed"] for row in tables.evals})
    judgements = sum(int(row.get("n_judgements") or 0) for row in tables.evals)
    counted = ((checkpoints, "checkpoint"), (len(datasets), "data set"), (seeds, "seed"), (judgements, "judgement"))
    return " · ".join(f"{n:,} {what}{'' if n == 1 else 's'}" for n, what in counted if n)


def _tiles(tables: ReportInput) -> list[Tile]:
    """Return the best checkpoint's numbers: its accuracy on each data set first, where it is told on."""
    own = [record for record in tables.records if record["checkpoint"] == tables.best_checkpoint]
    own.sort(key=lambda record: record["dataset"] != tables.best_dataset)
    if not own:
        return []
    tiles = [_accuracy_tile(record) for record in own[:4]]
    record = own[0]
    if math.isfinite(gain := number(record.get("difference"))):
        ends = interval_text(record.get("difference_low"), record.get("difference_high"), "+")
        tiles.insert(1, Tile(f"accuracy less {record.get('baseline') or 'the baseline'}'s", f"{gain:+.3f}", ends))
    loss = next((m for m in ("fitted_log_loss", "bt_log_loss") if math.isfinite(number(record.get(m)))), None)
    if loss is not None:
        under = "nats, " + ("cross-fitted temperature" if loss == "fitted_log_loss" else "given temperature")
        tiles.append(Tile("log-loss (a coin: 0.693)", f"{number(record[loss]):.3f}", under))
    if math.isfinite(rate := number(record.get("unparsed_rate"))):
        tiles.append(Tile("answers without a score", f"{rate:.2%}", str(record["dataset"])))
    return tiles


def _accuracy_tile(record: Row) -> Tile:
    ends = interval_text(record.get("accuracy_low"), record.get("accuracy_high"))
    return Tile(f"accuracy, {record['dataset']}", number_cell(record.get("accuracy")).text, f"{ends} 95 %".strip())


def _curves(tables: ReportInput, dataset: str) -> Curves | None:
    def draw(metric: Any, size: Frame) -> Titled | None:
        found = spots(tables.records, tables.evals, dataset, metric.name)
        svg = learning_curve(found, metric, tables.best_checkpoint, size)
        return None if svg is None else Titled(metric.title, svg)

    accuracy = draw(ACCURACY, _LARGE)
    if accuracy is None:
        return None
    return Curves(dataset, accuracy, [chart for metric in SMALL if (chart := draw(metric, _SMALL))])


def _comparisons(rows: Sequence[Row]) -> list[Group]:
    kinds = list(dict.fromkeys(str(row.get("kind", "")) for row in rows))
    groups = {kind: [row for row in rows if str(row.get("kind", "")) == kind] for kind in kinds}
    return [Group(_KINDS.get(kind, kind or "All"), comparison_table(own)) for kind, own in groups.items()]


def _cell(tables: ReportInput, pooled: Mapping[tuple[str, str], Pooled], key: tuple[str, str]) -> CellView:
    checkpoint, dataset = key
    baseline = tables.baseline if tables.baseline != checkpoint else None
    other = pooled.get((baseline, dataset)) if baseline is not None else None
    record = next((r for r in tables.records if (r["checkpoint"], r["dataset"]) == key), None)
    numbers = [] if record is None else _numbers(record)
    title = f"{checkpoint} · {dataset}" + (" (best)" if checkpoint == tables.best_checkpoint else "")
    parts = part_tables({checkpoint: pooled[key]})
    tails = tails_table([row for row in tables.evals if (row["checkpoint"], row["dataset"]) == key])
    return CellView(title, panels(pooled[key], other), numbers, tails, parts)


def _numbers(record: Row) -> list[Tile]:
    """Return the numbers that the summary's table has no room for, with their intervals."""
    found: list[Tile] = []
    for column in COLUMNS:
        if not _stands_alone(column, record):
            continue
        ends = interval_text(record.get(f"{column.name}_low"), record.get(f"{column.name}_high"))
        text = number_cell(record[column.name], column.decimals or 0).text
        found.append(Tile(column.name, f"{text} {ends}".strip(), column.meaning))
    return found


def _stands_alone(column: Column, record: Row) -> bool:
    """Whether a column is a number of its own: wide, told, and no end of another one's interval."""
    name = column.name
    if column.decimals is None or not column.wide or name.endswith(("_low", "_high", "_std")):
        return False
    return math.isfinite(number(record.get(name)))


def _parts(tables: ReportInput, pooled: Mapping[tuple[str, str], Pooled], datasets: Sequence[str]) -> list[Table]:
    """Return subsets and official scores with some checkpoints beside one another, a table a data set."""
    found: list[Table] = []
    for dataset in datasets:
        keys = choose(tables, [key for key in pooled if key[1] == dataset], _COLUMNS)
        own = {key[0]: one for key, one in pooled.items() if key in keys}
        found += part_tables(own, f"{dataset}: ") if len(own) > 1 else []
    return found
