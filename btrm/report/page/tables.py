"""What a table of the page is made of: what people read, what a click sorts by, and small pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from btrm.report.page.svg import Svg
from btrm.report.page.values import minus, number


@dataclass(frozen=True, slots=True)
class Head:
    """A column's title, what it means, and its looks: n (numbers), w (sentences), or none; `svg` before the title."""

    name: str
    meaning: str = ""
    look: str = "n"
    svg: Svg | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """What is read, and what is sorted by (empty: goes last); `svg` beside the text."""

    text: str
    key: str = ""
    svg: Svg | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One row; `mark` is what the row is marked with, `warned` whether it says to beware."""

    cells: list[Cell]
    mark: str = ""
    warned: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table with what it shows, in words."""

    caption: str
    heads: list[Head]
    lines: list[Line] = field(default_factory=list[Line])


def text_cell(value: Any) -> Cell:
    """Return a cell of text."""
    text = "" if value is None else str(value)
    return Cell(text, text)


def number_cell(value: Any, decimals: int = 3, sign: str = "") -> Cell:
    """Return a cell of a number, empty for what is not defined."""
    amount = number(value)
    if math.isnan(amount):
        return Cell("")
    if math.isinf(amount):
        return Cell("∞", "Infinity")
    return Cell(minus(f"{amount:{sign},.{decimals}f}"), f"{amount:.7g}")


def p_cell(value: Any) -> Cell:
    """Return a p-value, never as nothing."""
    p = number(value)
    return number_cell(p) if math.isnan(p) or p >= 0.001 else Cell("<0.001", f"{p:.4g}")


def interval_text(low: Any, high: Any, sign: str = "") -> str:
    """Write an interval, nothing where there is none."""
    ends = [number(low), number(high)]
    return minus(f"[{ends[0]:{sign}.3f}, {ends[1]:{sign}.3f}]") if all(map(math.isfinite, ends)) else ""
