"""Which checkpoint is the best, selected on one data set and told on another.

A maximum over checkpoints is optimistic on the data that it was taken on: the luckiest of several equal ones is taken,
with its luck. So the selection is on validation data where there are any, and a number from the data that it was
selected on is marked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from btrm.config import ConfigError, nearest
from btrm.report.boards import Board
from btrm.report.rows import OPTIMISTIC, JudgeKey, SummaryRow, how_selected

_VALIDATION = ("validation", "val", "valid", "valid1", "dev")


def choose_data_set(datasets: Iterable[str], wanted: str | None = None) -> str | None:
    """Return the data set to select on: the wanted one, else one that is called validation, else the only one.

    None where there are several and nothing tells which. Raises ConfigError for a wanted one that is not there.
    """
    names = list(dict.fromkeys(datasets))
    if wanted is not None:
        if wanted not in names:
            raise ConfigError(f"select_on {wanted!r}: no such data set{nearest(wanted, names)}")
        return wanted
    called = next((name for known in _VALIDATION for name in names if name.lower() == known), None)
    return called or (names[0] if len(names) == 1 else None)


def choose_judge(board: Board) -> JudgeKey | None:
    """Return the judge with the highest accuracy, the earliest of equal ones; None where there is no choice."""
    told = [key for key in board.keys if board.accuracy(key) > -math.inf]
    whole = {key for key in told if not board.missing[key]}
    return max(_eligible(told, whole), key=board.accuracy) if len(told) > 1 else None


def choose_row(rows: Sequence[SummaryRow]) -> SummaryRow | None:
    """Return the row with the highest accuracy of a data set's rows, by the same rules."""
    return ranked(rows)[0] if len(with_accuracy(rows)) > 1 else None


def with_accuracy(rows: Sequence[SummaryRow]) -> list[SummaryRow]:
    """Return the rows whose accuracy is defined."""
    return [row for row in rows if not math.isnan(row.mean("accuracy"))]


def ranked(rows: Sequence[SummaryRow]) -> list[SummaryRow]:
    """Return the rows that may be selected, the highest accuracy first, the earliest of equal ones."""
    told = with_accuracy(rows)
    keys = set(_eligible([row.key for row in told], {row.key for row in told if row.whole}))
    return sorted((row for row in told if row.key in keys), key=lambda row: -row.mean("accuracy"))


def _eligible(keys: Sequence[JudgeKey], whole: set[JudgeKey]) -> list[JudgeKey]:
    """Return who may be selected: those with all their cells, for a mean over fewer seeds or pairs is another number.

    Where fewer than two are whole there is nothing to choose from, and all may be.
    """
    return [key for key in keys if key in whole or len(whole) < 2]


def mark(row: SummaryRow, selected: JudgeKey | None, selected_on: str | None) -> str:
    """Return what `selected` says of a row: nothing, by which data it was selected, or that it is optimistic."""
    return "" if selected is None or row.key != selected else how_selected(row.dataset, selected_on)


def is_optimistic(record: Mapping[str, Any]) -> bool:
    """Return whether a row of the summary is from the data that its checkpoint was selected on."""
    return record.get("selected") == OPTIMISTIC
