"""Cells of tables as numbers."""

from __future__ import annotations

import math
from typing import Any


def number(value: Any) -> float:
    """Read a cell: None, and text that is no number, are NaN."""
    try:
        return math.nan if value is None or value == "" else float(value)
    except (TypeError, ValueError):
        return math.nan
