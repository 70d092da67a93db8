"""Cells of tables as numbers."""

from __future__ import annotations

import math
from typing import Any


def minus(text: str) -> str:
    """Write a minus as wide as a plus."""
    return text.replace("-", "−")


def number(value: Any) -> float:
    """Read a cell: None, and text that is no number, are NaN."""
    try:
        return math.nan if value is None or value == "" else float(value)
    except (TypeError, ValueError):
        return math.nan
