"""The learning curve: held-out accuracy over training steps, with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from btrm.report.rows import OPTIMISTIC, SummaryRow

_ACROSS = 3  # panels in a line
_STYLES = ("--", ":", "-.")


def draw_curve(rows: Sequence[SummaryRow], path: Path) -> None:
    """Write a PNG with a panel a data set (and prompt): checkpoints by step, what has no step as a line across."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = _panels(rows)
    across = min(len(panels), _ACROSS)
    down = -(-len(panels) // across)
    figure = Figure(figsize=(6.4 * across, 4.2 * down), layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: nothing global, no display
    places = figure.subplots(down, across, squeeze=False).ravel()
    for axes, (title, mine) in zip(places, panels.items(), strict=False):
        _panel(axes, mine, title)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    figure.savefig(path, dpi=150, format="png")


def _panels(rows: Sequence[SummaryRow]) -> dict[str, list[SummaryRow]]:
    """Return {title: rows}: a panel a data set, and a prompt and method where there are several."""
    several = len({(row.key.prompt, row.key.method) for row in rows}) > 1
    panels: dict[str, list[SummaryRow]] = {}
    for row in rows:
        title = f"{row.dataset}, {row.key.prompt}, {row.key.method}" if several else row.dataset
        panels.setdefault(title, []).append(row)
    return panels


def _name(row: SummaryRow) -> str:
    return f"{row.checkpoint} ({row.selected})" if row.selected == OPTIMISTIC else row.checkpoint


def _panel(axes: Any, rows: Sequence[SummaryRow], title: str) -> None:
    steps = [row for row in rows if row.step is not None]
    if steps:
        x = [row.step for row in steps]
        axes.fill_between(x, [r.accuracy.low for r in steps], [r.accuracy.high for r in steps], alpha=0.25, lw=0)
        axes.plot(x, [row.mean("accuracy") for row in steps], marker="o", label="checkpoints (95 % interval)")
        for row in (row for row in steps if row.selected == OPTIMISTIC):
            axes.plot(row.step, row.mean("accuracy"), "*", ms=14, color="C0", mec="k", label=_name(row))
    for number, row in enumerate(row for row in rows if row.step is None):
        color = f"C{number + 1}"
        axes.axhline(row.mean("accuracy"), ls=_STYLES[number % 3], color=color, label=_name(row))
        axes.axhspan(row.accuracy.low, row.accuracy.high, color=color, alpha=0.08, lw=0)
    axes.axhline(0.5, color="0.6", lw=0.8, zorder=0)
    axes.set(xlabel="training step", ylabel="accuracy", title=f"Accuracy on {title}", ylim=(0.4, 1.02))
    lowest = min((row.accuracy.low for row in rows if not math.isnan(row.accuracy.low)), default=0.5)
    if lowest < 0.42:
        axes.set_ylim(max(0.0, lowest - 0.05), 1.02)
    if not steps:
        axes.set_xticks([])
    axes.grid(alpha=0.3)
    axes.legend(loc="center right", fontsize=9)
