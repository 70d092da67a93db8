"""What a cell's row of details.jsonl holds beside its name: curves, histograms, subsets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from btrm.metrics.bootstrap import Interval
from btrm.metrics.confidence import risk_coverage
from btrm.metrics.measured import SUBSET, Measured

_SCORE_BINS = 20
_MARGIN_BINS = 40


def details(measured: Measured, found: Mapping[str, Interval]) -> dict[str, Any]:
    """Return a cell's details; NaN is undefined."""
    cell, curves = measured.cell, measured.more_samples
    several = cell.is_repeated  # else a curve over k would be one point, or flat
    return {
        "checkpoint": cell.judge,
        "dataset": cell.dataset,
        "seed": cell.seed,
        "prompt": cell.prompt,
        "method": cell.method,
        "reliability": [asdict(row) for row in measured.reliability],
        "risk_coverage": [asdict(row) for row in risk_coverage(measured.risk_N)],
        "score_histogram": _score_histogram(measured),
        "margin_histogram": _margin_histogram(measured),
        "mean_at_k": [asdict(row) for row in curves.mean_at] if several else [],
        "majority_at_k": [asdict(row) for row in curves.majority_at] if several else [],
        "subsets": _subsets(measured, found),
        "official": [asdict(score) for score in measured.official],
    }


def _score_histogram(measured: Measured) -> dict[str, list[float] | list[int]]:
    """Count the scores of the preferred side and of the other in equal bins of the scale (the last: both ends)."""
    cell = measured.cell
    edges = np.linspace(measured.scale.low, measured.scale.high, _SCORE_BINS + 1)
    row_P = np.arange(len(cell.preferred_P))
    sides = {"preferred": cell.preferred_P, "other": 1 - cell.preferred_P}
    counts = {name: np.histogram(cell.score_P2K[row_P, side_P], edges)[0].tolist() for name, side_P in sides.items()}
    return {"edges": edges.tolist(), **counts}


def _margin_histogram(measured: Measured) -> dict[str, list[float] | list[int]]:
    """Count the margins in equal bins of all that the scale allows; those of 0 lie in the bin around it."""
    widest = measured.scale.high - measured.scale.low
    half = widest / _MARGIN_BINS
    edges = np.linspace(-widest - half, widest + half, _MARGIN_BINS + 2)
    counts, _ = np.histogram(measured.outcomes.margin_P, edges)
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def _subsets(measured: Measured, found: Mapping[str, Interval]) -> list[dict[str, Any]]:
    return [
        {
            "name": name.removeprefix(SUBSET),
            "n": int(measured.columns[name][1].sum()),
            "accuracy": measured.value(name),
            "low": found[name].low,
            "high": found[name].high,
        }
        for name in measured.columns
        if name.startswith(SUBSET)
    ]
