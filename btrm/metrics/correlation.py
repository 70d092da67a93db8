"""Correlations of two lists of numbers, NaN where either does not vary."""

from __future__ import annotations

import math

import numpy as np

from btrm.metrics.pairwise import Floats


def pearson(one_N: Floats, other_N: Floats) -> float:
    """Return Pearson's correlation; NaN where either does not vary."""
    if len(one_N) < 2:
        return math.nan
    a, b = one_N - one_N.mean(), other_N - other_N.mean()
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norm if norm > 0 else math.nan


def spearman(one_N: Floats, other_N: Floats) -> float:
    """Return Spearman's rank correlation (Spearman 1904): Pearson's of the ranks."""
    return pearson(ranks(one_N), ranks(other_N))


def ranks(value_N: Floats) -> Floats:
    """Return ranks from 1; equal values get the mean of their ranks."""
    _, inverse, count = np.unique(value_N, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[inverse]
