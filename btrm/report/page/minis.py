"""Pictures of one line that stand in a table's cell, beside the numbers that they show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from btrm.report.page.svg import Frame, Plot, Point, Svg


def forest_range(intervals: Sequence[Point], reference: float) -> tuple[float, float]:
    """Return the range that all rows of a forest share."""
    values = [value for interval in intervals for value in interval if math.isfinite(value)] + [reference]
    pad = (max(values) - min(values)) * 0.05 or 0.01
    return min(values) - pad, max(values) + pad


def forest(mean: float, low: float, high: float, bounds: tuple[float, float], reference: float) -> Svg:
    """Draw one row of a forest: a dot, its interval, and the line that it is compared with."""
    plot = Plot(Frame(bounds, (0, 1), 150, 16, 4, 4, 1, 1), "")
    plot.line([(reference, 0), (reference, 1)], "chance")
    plot.line([(low, 0.5), (high, 0.5)], "interval")
    plot.dot(mean, 0.5, "own", 3.2)
    return plot.svg("mini")


def swatch(order: int) -> Svg:
    """Draw what a part of a stacked bar looks like."""
    plot = Plot(Frame((0, 1), (0, 1), 12, 12, 1, 1, 1, 1), "")
    plot.bars([0, 1], [1.0], f"part{order % 6}")
    return plot.svg("swatch")


def shares_bar(shares: Mapping[str, float], longest: float) -> Svg:
    """Draw what went wrong with a checkpoint's answers as one stacked bar; `longest` fills the width."""
    plot = Plot(Frame((0, longest), (0, 1), 150, 16, 1, 1, 2, 2), "")
    start = 0.0
    for order, share in enumerate(shares.values()):
        if share > 0:
            plot.bars([start, start + share], [1.0], f"part{order % 6}")
        start += share
    return plot.svg("mini")
