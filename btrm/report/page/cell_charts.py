"""The small panels of one checkpoint: how it is calibrated, how sure it is, what it answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from btrm.report.page.pooled import Curve, Pooled
from btrm.report.page.svg import Frame, Plot, Svg

_UNIT = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture with its title and a sentence on how to read it."""

    title: str
    svg: Svg
    caption: str


def panels(own: Pooled, other: Pooled | None) -> list[Chart]:
    """Return the panels that there is data for; `other` (the baseline) is drawn thin beside it."""
    drawn = (
        _reliability(own, other),
        _risk_coverage(own, other),
        _margins(own),
        _scores(own),
        _at_k(own),
    )
    return [chart for chart in drawn if chart is not None]


def _versus(other: Pooled | None) -> str:
    return "" if other is None else f" Dashed grey: {other.checkpoint}."


def _reliability(own: Pooled, other: Pooled | None) -> Chart | None:
    if not own.reliability:
        return None
    total = sum(b.n for b in own.reliability)
    said = ", ".join(f"{b.frequency:.2f} at {b.chance:.2f}" for b in own.reliability)
    first = min(0.5, *(b.chance for b in own.reliability))
    lows = [_wilson(b.frequency, b.n)[0] for b in own.reliability]
    lows += [b.frequency for b in other.reliability] if other is not None else []
    frame = Frame((first, 1), (min(first, *lows), 1))
    plot = Plot(frame, f"Reliability of {own.checkpoint}, share right by confidence: {said}")
    plot.axes("confidence", "share right")
    plot.line([(first, first), (1, 1)], "ideal")
    if other is not None:
        plot.line([(b.chance, b.frequency) for b in other.reliability], "other")
    plot.line([(b.chance, b.frequency) for b in own.reliability], "own thin")
    for b in own.reliability:
        plot.whisker(b.chance, *_wilson(b.frequency, b.n), "own")
        tip = f"confidence {b.chance:.3f}, right {b.frequency:.3f}, {b.n:,.0f} pairs"
        plot.dot(b.chance, b.frequency, "own", 2 + 6 * math.sqrt(b.n / total), tip)
    caption = "On the diagonal it is calibrated; area: share of pairs, whiskers: 95 % (Wilson, over pairs of one seed)."
    return Chart("Reliability of σ(|Δ|/T), T fitted", plot.svg(), caption + _versus(other))


def _wilson(share: float, n: float) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share of n (Wilson 1927)."""
    z = 1.959964
    middle, scale = share + z * z / (2 * n), 1 + z * z / n
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle - half) / scale, (middle + half) / scale


def _risk_coverage(own: Pooled, other: Pooled | None) -> Chart | None:
    if not own.risk_coverage:
        return None
    risks = [r for _, r in own.risk_coverage] + [r for _, r in (other.risk_coverage if other else [])]
    everything, half = own.risk_coverage[-1][1], _at(own.risk_coverage, 0.5)
    label = f"Risk and coverage of {own.checkpoint}: {half:.3f} wrong in the surest half, {everything:.3f} in all pairs"
    plot = Plot(Frame((0, 1), (0, max(0.05, *risks) * 1.08)), label)
    plot.axes("share of pairs kept, the surest first", "share wrong", _UNIT)
    if other is not None:
        plot.line(other.risk_coverage, "other")
    plot.line(own.risk_coverage, "own")
    caption = f"Surest half: {half:.3f} wrong; all: {everything:.3f}. A confidence worth having falls to the left."
    return Chart("Risk and coverage", plot.svg(), caption + _versus(other))


def _at(curve: Curve, x: float) -> float:
    return min(curve, key=lambda point: abs(point[0] - x))[1]


def _margins(own: Pooled) -> Chart | None:
    """Draw wrong pairs hatched left of zero, right ones to its right, equal scores in grey."""
    histogram = own.margins
    if histogram is None:
        return None
    edges, (counts, *_) = histogram.edges, histogram.counts.values()
    total = sum(counts) or 1.0
    wrong, right = _side(edges, counts, -1), _side(edges, counts, 1)
    level = [c - w - r for c, w, r in zip(counts, wrong, right, strict=True)]
    shares = [sum(part) / total for part in (wrong, level, right)]
    said = f"{shares[0]:.1%} wrong, {shares[1]:.1%} about zero, {shares[2]:.1%} right"
    plot = Plot(
        Frame((edges[0], edges[-1]), (0, max(*counts, 1.0) / total * 1.08)), f"Margins of {own.checkpoint}: {said}"
    )
    plot.axes("margin: preferred less other", "share of pairs")
    for part, look in ((wrong, "wrong"), (level, "level"), (right, "right")):
        plot.bars(edges, [c / total for c in part], look)
    plot.line([(0, 0), (0, max(counts) / total)], "zero")
    return Chart("Margins", plot.svg(), f"Hatched, grey, filled: {said}.")


def _side(edges: list[float], counts: list[float], sign: int) -> list[float]:
    """Keep the bins that lie wholly on one side of zero."""
    bins = zip(pairwise(edges), counts, strict=True)
    return [count if low * high >= 0 and (low + high) * sign > 0 else 0.0 for (low, high), count in bins]


def _scores(own: Pooled) -> Chart | None:
    histogram = own.scores
    if histogram is None:
        return None
    shares = {name: [c / (sum(counts) or 1.0) for c in counts] for name, counts in histogram.counts.items()}
    preferred, other = shares["preferred"], shares["other"]
    overlap = sum(min(a, b) for a, b in zip(preferred, other, strict=True))
    frame = Frame((histogram.edges[0], histogram.edges[-1]), (0, max(*preferred, *other, 0.01) * 1.08))
    plot = Plot(frame, f"Scores of {own.checkpoint}: preferred and other responses overlap by {overlap:.1%}")
    plot.axes("score", "share of answers")
    plot.bars(histogram.edges, preferred, "preferred")
    plot.bars(histogram.edges, other, "others")
    return Chart("Scores", plot.svg(), f"Filled: preferred; dashed outline: other. They overlap by {overlap:.1%}.")


def _at_k(own: Pooled) -> Chart | None:
    curves = {"mean": own.mean_at_k, "majority": own.majority_at_k}
    if max(map(len, curves.values())) < 2:
        return None  # one sample a side: nothing to average
    values = [a for curve in curves.values() for _, a in curve]
    ks = [k for k, _ in max(curves.values(), key=len)]
    pad = max(0.01, (max(values) - min(values)) * 0.15)
    said = "; ".join(
        f"{name} of {c[-1][0]:.0f}: {c[-1][1]:.3f} (of one: {c[0][1]:.3f})" for name, c in curves.items() if c
    )
    plot = Plot(Frame((ks[0], ks[-1]), (min(values) - pad, max(values) + pad)), f"{own.checkpoint}: {said}")
    plot.axes("samples k", "accuracy", [k for k in ks if k == ks[0] or k % max(1, len(ks) // 8) == 0])
    for (name, curve), look in zip(curves.items(), ("own", "second"), strict=True):
        plot.line(curve, look)
        for k, accuracy in curve:
            plot.dot(k, accuracy, look, 2.5, f"{name} of {k:.0f}: {accuracy:.3f}")
    return Chart("More samples", plot.svg(), f"Solid: mean of k; dashed: majority of k. {said}.")
