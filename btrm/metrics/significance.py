"""P-values of paired differences, and what becomes of them where many are looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from btrm.metrics.pairwise import Floats


def log_factorials(n: int) -> Floats:
    """Return log(0!) .. log(n!)."""
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])


def mcnemar(wins: int, losses: int) -> tuple[float, float]:
    """Return McNemar's two-sided p (McNemar 1947) of what one judge has right and the other wrong: (exact, mid-p).

    Under the null wins are Binomial(wins + losses, 1/2). Exact is twice the smaller tail, at most 1; mid-p takes half
    of what was observed out of it (Fagerland, Lydersen and Laake 2013), which keeps its level where exact is too shy.
    """
    n, few = wins + losses, min(wins, losses)
    if n == 0:
        return 1.0, 1.0
    log_n = log_factorials(n)
    chance = np.exp(log_n[n] - log_n[: few + 1] - log_n[n - few : n + 1][::-1] - n * math.log(2))
    tail = float(chance.sum())
    exact = min(1.0, 2 * tail)
    return exact, 1.0 if wins == losses else min(1.0, 2 * tail - float(chance[-1]))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for all of them by Holm's step-down (Holm 1979); NaN stays, and counts for none."""
    p_N = np.asarray(p_values, dtype=np.float64)
    told = np.flatnonzero(~np.isnan(p_N))
    order = told[np.argsort(p_N[told], kind="stable")]
    adjusted_N = np.full(len(p_N), np.nan)
    stepped = p_N[order] * np.arange(len(order), 0, -1)
    adjusted_N[order] = np.minimum(1.0, np.maximum.accumulate(stepped))
    return adjusted_N.tolist()
