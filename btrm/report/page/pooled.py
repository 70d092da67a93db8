"""The details of one checkpoint on one data set: its seeds brought together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btrm.report.page.values import number
from btrm.report.report_input import Row

Floats = NDArray[np.float64]
Curve = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Bin:
    """A bin of the reliability diagram: mean predicted chance, observed frequency, pairs (mean over seeds)."""

    chance: float
    frequency: float
    n: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts between edges, one list a name."""

    edges: list[float]
    counts: Mapping[str, list[float]]


@dataclass(frozen=True, slots=True)
class Part:
    """A subset or an official score; the interval is the mean of the seeds', NaN where there is none."""

    name: str
    n: float
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Pooled:
    """What there is to draw of a checkpoint on a data set; curves are means over seeds, histograms sums."""

    checkpoint: str
    dataset: str
    n_seeds: int
    reliability: list[Bin]
    risk_coverage: Curve
    scores: Histogram | None
    margins: Histogram | None
    mean_at_k: Curve
    majority_at_k: Curve
    subsets: list[Part]
    official: list[Part]


def pool(details: Iterable[Row]) -> dict[tuple[str, str], Pooled]:
    """Return (checkpoint, data set) -> its details, in the order in which they first appear."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in details:
        groups.setdefault((str(row["checkpoint"]), str(row["dataset"])), []).append(row)
    return {key: _pool(*key, rows) for key, rows in groups.items()}


def _pool(checkpoint: str, dataset: str, rows: Sequence[Row]) -> Pooled:
    return Pooled(
        checkpoint,
        dataset,
        len(rows),
        _reliability(rows),
        _risk_coverage(rows),
        _histogram(rows, "score_histogram"),
        _histogram(rows, "margin_histogram"),
        _at_k(rows, "mean_at_k"),
        _at_k(rows, "majority_at_k"),
        _parts(rows, "subsets", "accuracy"),
        _parts(rows, "official", "value"),
    )


def _items(rows: Sequence[Row], key: str) -> list[Mapping[str, Any]]:
    return [item for row in rows for item in row.get(key) or ()]


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def _grouped(items: Iterable[Mapping[str, Any]], *keys: str) -> dict[tuple[Any, ...], list[Mapping[str, Any]]]:
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for item in items:
        groups.setdefault(tuple(item[key] for key in keys), []).append(item)
    return groups


def _reliability(rows: Sequence[Row]) -> list[Bin]:
    """Weigh each seed's bins by their pairs."""
    bins: list[Bin] = []
    for _, items in sorted(_grouped(_items(rows, "reliability"), "low", "high").items()):
        full = [item for item in items if item["n"] and item["chance"] is not None and item["frequency"] is not None]
        total = sum(item["n"] for item in full)
        if total:
            chance, frequency = (sum(item["n"] * item[k] for item in full) / total for k in ("chance", "frequency"))
            bins.append(Bin(chance, frequency, total / len(rows)))
    return bins


def _risk_coverage(rows: Sequence[Row]) -> Curve:
    """Average the seeds' curves on a common grid of coverages."""
    curves: list[tuple[Floats, Floats]] = []
    for row in rows:
        points = sorted((number(p["coverage"]), number(p["risk"])) for p in row.get("risk_coverage") or ())
        known = [p for p in points if all(map(math.isfinite, p))]
        if known:
            curves.append((np.array([c for c, _ in known]), np.array([r for _, r in known])))
    if not curves:
        return []
    first = max(float(coverage[0]) for coverage, _ in curves)
    last = min(float(coverage[-1]) for coverage, _ in curves)
    grid = np.linspace(first, last, 51)
    risk = np.mean([np.interp(grid, *curve) for curve in curves], axis=0)
    return [(float(c), float(r)) for c, r in zip(grid, risk, strict=True)]


def _histogram(rows: Sequence[Row], key: str) -> Histogram | None:
    """Add up the counts of the seeds that have the first one's edges."""
    found: list[Mapping[str, Any]] = [row[key] for row in rows if row.get(key)]
    if not found:
        return None
    edges = [float(edge) for edge in found[0]["edges"]]
    same = [one for one in found if list(one["edges"]) == list(found[0]["edges"])]
    names = [name for name in found[0] if name != "edges"]
    return Histogram(edges, {n: [float(c) for c in np.sum([one[n] for one in same], axis=0)] for n in names})


def _at_k(rows: Sequence[Row], key: str) -> Curve:
    groups = _grouped(_items(rows, key), "k")
    curve = [(float(k), _mean(number(item["accuracy"]) for item in items)) for (k,), items in sorted(groups.items())]
    return [point for point in curve if math.isfinite(point[1])]


def _parts(rows: Sequence[Row], key: str, value: str) -> list[Part]:
    parts: list[Part] = []
    for (name,), items in _grouped(_items(rows, key), "name").items():
        low, high = (_mean(number(item.get(side)) for item in items) for side in ("low", "high"))
        mean, n = (_mean(number(item.get(k)) for item in items) for k in (value, "n"))
        parts.append(Part(str(name), n, mean, low, high))
    return parts
