"""Cells of tables as numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def number(value: Any) -> float:
    """Read a cell: None, and text that is no number, are NaN."""
    try:
        return math.nan if value is None or value == "" else float(value)
    except (TypeError, ValueError):
        return math.nan


def mean_of(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    """Return the mean of a column over the rows that tell it, NaN where none does."""
    known = [value for row in rows if math.isfinite(value := number(row.get(key)))]
    return sum(known) / len(known) if known else math.nan


def minus(text: str) -> str:
    """Write a minus as wide as a plus."""
    return text.replace("-", "−")
