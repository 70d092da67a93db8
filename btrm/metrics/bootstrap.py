"""Percentile bootstrap over pairs, paired across whatever stands in the columns (Efron and Tibshirani 1993, ch. 13).

Percentile intervals of few draws are too narrow: by the factor of a variance divided by n instead of n - 1, and by the
normal quantile instead of Student's. `percentile_interval` takes quantiles further out by both (the expanded
percentile interval of Hesterberg 2015, section 5.3, The American Statistician 69); with some hundred draws it is the
plain one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

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


def percentile_interval(value_B: Floats, level: float = 0.95, n_drawn: int | None = None) -> Interval:
    """Return the central interval that holds `level` of the resamples (those that are defined).

    With `n_drawn`, the number of pairs or clusters that a resample draws, it is the expanded percentile interval;
    undefined for fewer than two, of which all resamples are one.
    """
    defined = value_B[~np.isnan(value_B)]
    if not len(defined) or (n_drawn is not None and n_drawn < 2):
        return Interval(float("nan"), float("nan"))
    tail = (1 - level) / 2 if n_drawn is None else expanded_tail((1 - level) / 2, n_drawn)
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(float(low), float(high))


def expanded_tail(tail: float, n_drawn: int) -> float:
    """Return Phi(-sqrt(n / (n - 1)) t), t the quantile of Student's t with n - 1 degrees that leaves `tail` above."""
    if n_drawn < 2:
        return 0.0
    return NormalDist().cdf(-math.sqrt(n_drawn / (n_drawn - 1)) * student_quantile(1 - tail, n_drawn - 1))


def told_tail(share: float, n_drawn: int) -> float:
    """Return the tail that `share` of the resamples tells of: expanded_tail's inverse, from share 0 (out) to 1/2."""
    if n_drawn < 2:
        return math.nan
    return student_tail(-math.sqrt((n_drawn - 1) / n_drawn) * NormalDist().inv_cdf(share), n_drawn - 1)


def student_tail(t: float, degrees: int) -> float:
    """Return the chance of more than t >= 0 in Student's distribution, right to nine digits up to 5,000 degrees.

    With t = root(degrees) tan(angle) the density is cos(angle)**(degrees - 1), up to a constant: it is integrated up to
    the right angle by Gauss and Legendre.
    """
    node_N, weight_N = np.polynomial.legendre.leggauss(64)
    angle = math.atan(t / math.sqrt(degrees))
    half = (math.pi / 2 - angle) / 2
    density_N = np.cos(angle + half * (node_N + 1)) ** (degrees - 1)
    constant = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(math.pi)
    return constant * half * float(weight_N @ density_N)


def student_quantile(chance: float, degrees: int) -> float:
    """Return a quantile of Student's t, by its expansion around the normal's (Abramowitz and Stegun 1964, 26.7.5).

    At 0.975 it is right to 1 % from two degrees on, and to 0.01 % from ten; with one degree it is exact (Cauchy's).
    """
    if degrees == 1:
        return math.tan(math.pi * (chance - 0.5))
    z = NormalDist().inv_cdf(chance)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / degrees**power for power, term in enumerate(terms, 1))


def edge_interval(value: float, n_drawn: int, level: float = 0.95) -> Interval:
    """Return the interval of a rate that is the same in all of n draws, where no resample differs from another.

    From 1 it goes down to (tail)^(1/n), from 0 up to the mirror of that, which is exact (Clopper and Pearson 1934): a
    share of draws that none of n shows may be so large. From a value between, it goes as far to both sides.
    """
    left_open = 1 - ((1 - level) / 2) ** (1 / n_drawn)
    return Interval(max(0.0, value - left_open), min(1.0, value + left_open))
