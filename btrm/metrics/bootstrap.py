"""Percentile bootstrap over pairs, paired across whatever stands in the columns (Efron and Tibshirani 1993, ch. 13)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_CHUNK = 4_000_000  # weights held at a time: 32 MB


@dataclass(frozen=True, slots=True)
class Interval:
    """A central interval of a bootstrap distribution; NaN, NaN where it is not defined."""

    low: float
    high: float


def resampled_sums(value_PM: Floats, n_bootstrap: int, seed: int, cluster_P: NDArray[np.int64] | None = None) -> Floats:
    """Return sum_BM: the columns' sums over each of B resamples of the P rows.

    All columns see the same resamples: differences between columns are paired. With `cluster_P` (0..C-1) whole
    clusters are drawn, for pairs that several people labelled.
    """
    rows = _cluster_sums(value_PM, cluster_P) if cluster_P is not None else value_PM
    return np.concatenate([weight_BP @ rows for weight_BP in _weights(len(rows), n_bootstrap, seed)])


def _cluster_sums(value_PM: Floats, cluster_P: NDArray[np.int64]) -> Floats:
    sums = np.zeros((int(cluster_P.max(initial=-1)) + 1, value_PM.shape[1]))
    np.add.at(sums, cluster_P, value_PM)
    return sums


def _weights(n_rows: int, n_bootstrap: int, seed: int) -> Iterator[Floats]:
    """Yield how often each row is drawn, a chunk of resamples at a time: each row of weights sums to n_rows."""
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK // max(n_rows, 1))
    for start in range(0, n_bootstrap, chunk):
        size = min(chunk, n_bootstrap - start)
        drawn = rng.integers(0, n_rows, (size, n_rows)) + n_rows * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * n_rows).reshape(size, n_rows).astype(np.float64)


def percentile_interval(value_B: Floats, level: float = 0.95) -> Interval:
    """Return the central interval that holds `level` of the resamples (those that are defined)."""
    defined = value_B[~np.isnan(value_B)]
    if not len(defined):
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
