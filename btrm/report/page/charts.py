"""Learning curves: a metric over training steps, a line a family, with bands, seeds and what stays level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from btrm.report.page.spots import Spot
from btrm.report.page.svg import Frame, Plot, Svg, nice_ticks

_LEVELS = 4  # lines across for checkpoints without a step; with more of them the table's forest says it better
_FAMILIES = 4  # lines over steps
_LABEL = 24  # characters of a name beside a line
_ALIKE = 1e-9  # values nearer than that differ by rounding alone


@dataclass(frozen=True, slots=True)
class Metric:
    """What a learning curve shows: a column, its name for people, and a line that chance would draw."""

    name: str
    title: str
    chance: float | None = None


ACCURACY = Metric("accuracy", "Accuracy", 0.5)
SMALL = (
    Metric("fitted_log_loss", "Log-loss, temperature fitted", math.log(2)),
    Metric("ece", "Calibration error (ECE)"),
    Metric("tie_rate", "Tie rate"),
    Metric("unparsed_rate", "Unparsed rate"),
)


def learning_curve(found: Sequence[Spot], metric: Metric, best: str | None, size: Frame) -> Svg | None:
    """Draw a metric over training steps; what has no step goes across as a named line. None: too few steps.

    `size` gives the pixels; its ranges are replaced by those of the data.
    """
    if metric.chance is None:  # what few contexts leave open of a rate of 0 would hide the curve: the tables tell it
        found = [replace(spot, low=math.nan, high=math.nan) for spot in found]
    families = _families(found, best)
    if not families:
        return None
    levels = [spot for spot in found if math.isnan(spot.step)]
    levels = levels if len(levels) <= _LEVELS else []
    drawn = [spot for family in families for spot in family]
    labels = [_Label(spot.mean, _level_name(spot)) for spot in levels]
    if len(families) > 1:
        labels += [_Label(family[-1].mean, family[-1].family) for family in families]
    frame = _frame(drawn, levels, metric, size, max((label.width for label in labels), default=14.0))
    plot = Plot(frame, _in_words(families[0], levels, metric))
    plot.axes("training step", metric.name.replace("_", " "), nice_ticks(*frame.x, 4 if frame.width < 400 else 6))
    _reference(plot, levels, metric)
    for place, family in reversed(list(enumerate(families))):
        _family(plot, family, best, "own" if place == 0 else f"family{place - 1}")
    _write_labels(plot, labels)
    return plot.svg("plot large" if size.width > 400 else "plot")


def _level_name(spot: Spot) -> str:
    """Name a line across; the note comes first, for long names are cut at their end."""
    return f"{'optimistic: ' if spot.optimistic else ''}{spot.checkpoint} {spot.mean:.3f}"


@dataclass(frozen=True, slots=True)
class _Label:
    y: float
    text: str

    @property
    def short(self) -> str:
        return self.text if len(self.text) <= _LABEL else f"{self.text[: _LABEL - 1]}…"

    @property
    def width(self) -> float:
        return 12 + 6.2 * len(self.short)


def _families(found: Sequence[Spot], best: str | None) -> list[list[Spot]]:
    """Return lines of at least two steps, the best checkpoint's first, by step."""
    families: dict[str, list[Spot]] = {}
    for spot in found:
        if math.isfinite(spot.step):
            families.setdefault(spot.family, []).append(spot)
    lines = [sorted(family, key=lambda spot: spot.step) for family in families.values() if len(family) > 1]
    return sorted(lines, key=lambda line: all(spot.checkpoint != best for spot in line))[:_FAMILIES]


def _frame(drawn: Sequence[Spot], levels: Sequence[Spot], metric: Metric, size: Frame, right: float) -> Frame:
    values = [v for spot in (*drawn, *levels) for v in (spot.mean, spot.low, spot.high, *spot.seeds.values())]
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite), max(finite)
    if metric.chance is None:
        bounds = (0.0, high * 1.08 or 0.01)  # rates begin at nothing
    else:
        near = min(abs(low - metric.chance), abs(high - metric.chance)) < (high - low) * 1.5 + 0.02
        low, high = (min(low, metric.chance), max(high, metric.chance)) if near else (low, high)
        pad = (high - low) * 0.08 if high - low > _ALIKE else 0.01
        bounds = (low - pad, high + pad)
    first, last = min(spot.step for spot in drawn), max(spot.step for spot in drawn)
    room = (last - first) * 0.02 or 1.0
    return Frame((first - room, last + room), bounds, size.width, size.height, size.left, right, size.top, size.bottom)


def _family(plot: Plot, family: Sequence[Spot], best: str | None, look: str) -> None:
    """Draw one line; the first has a band, its seeds, and the best checkpoint's mark."""
    first = look == "own"
    steps = [spot.step for spot in family]
    if first:
        plot.band(steps, [spot.low for spot in family], [spot.high for spot in family], look)
    plot.line([(spot.step, spot.mean) for spot in family], look)
    inside = plot.frame.width - plot.frame.left - plot.frame.right
    radius = max(1.0, min(3.0, inside / len(family) / 3))  # many checkpoints, small points
    for spot in family:
        for seed, value in spot.seeds.items() if first and len(spot.seeds) > 1 else ():
            plot.dot(spot.step, value, "seed", 0.6 * radius, f"{spot.checkpoint}, seed {seed}: {value:.4g}")
        plot.dot(spot.step, spot.mean, "own best" if spot.checkpoint == best else look, radius, _tip(spot))
        if spot.checkpoint == best:
            top = max(value for value in (spot.mean, spot.high, *spot.seeds.values()) if math.isfinite(value))
            said = "best (optimistic)" if spot.optimistic else "best"
            side = "end" if spot is family[-1] else "middle"  # what stands at the right is named there
            plot.note(spot.step, top, said, side, "note strong", -6)


def _tip(spot: Spot) -> str:
    interval = f" [{spot.low:.3f}, {spot.high:.3f}]" if math.isfinite(spot.low) else ""
    return f"{spot.checkpoint}: {spot.mean:.3f}{interval}{', optimistic: selected on it' if spot.optimistic else ''}"


def _reference(plot: Plot, levels: Sequence[Spot], metric: Metric) -> None:
    """Draw what has no step across, and what chance would do."""
    left, right = plot.frame.x
    low, high = plot.frame.y
    if metric.chance is not None and low <= metric.chance <= high:
        plot.line([(left, metric.chance), (right, metric.chance)], "chance")
    for order, spot in enumerate(sorted(levels, key=lambda spot: -spot.mean)):
        plot.line([(left, spot.mean), (right, spot.mean)], f"level level{order}")
        plot.whisker(right, spot.low, spot.high, "level", -5 * order)


def _write_labels(plot: Plot, labels: Sequence[_Label]) -> None:
    """Write names at the right, from above, each clear of the one before."""
    right = plot.frame.x[1]
    last = -math.inf
    for label in sorted(labels, key=lambda label: -label.y):
        y = plot.frame.at(right, label.y)[1] + 4
        last = max(y, last + 13)
        plot.note(right, label.y, f"\u2002{label.short}", shift=last - y + 4)


def _in_words(steps: Sequence[Spot], levels: Sequence[Spot], metric: Metric) -> str:
    first, last, top = steps[0], steps[-1], max(steps, key=lambda spot: spot.mean)
    across = "".join(f"; {spot.checkpoint} {spot.mean:.3f}" for spot in levels)
    return (
        f"{metric.title} over {len(steps)} checkpoints: {first.mean:.3f} at step {first.step:g}, "
        f"{last.mean:.3f} at step {last.step:g}, highest {top.mean:.3f} at step {top.step:g}{across}"
    )
