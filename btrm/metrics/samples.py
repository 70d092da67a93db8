"""What several answers about one response tell of the judge: spread, resolution, and noise against signal."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from btrm.metrics.pairwise import Floats


@dataclass(frozen=True, slots=True)
class Spread:
    """Of all scores: how many values are in use, and the entropy of their frequencies in bits (Shannon 1948).

    A judge that uses m values equally often has log2(m) bits: what its answers can tell apart at most.
    """

    support: int
    entropy: float


@dataclass(frozen=True, slots=True)
class Components:
    """Variances, in squared score units: of answers about one response, and of the responses' true means.

    `intraclass` is the share of a single answer's variance that is the response's own. NaN where nothing is repeated.
    """

    within: float
    between: float

    @property
    def intraclass(self) -> float:
        """between / (between + within): ICC(1) of Shrout and Fleiss (1979); below 0 it means none."""
        total = self.within + self.between
        return self.between / total if total > 0 else math.nan


def spread(score_N: Floats) -> Spread:
    """Return support and entropy of scores; an entropy of NaN where there are none."""
    _, count = np.unique(score_N, return_counts=True)
    if not len(count):
        return Spread(0, math.nan)
    share = count / count.sum()
    return Spread(len(count), abs(float(np.sum(share * np.log2(share)))))


def variance_components(score_P2K: Floats) -> Components:
    """Split the variance of scores by a one-way analysis with random effects, a group a response.

    Groups may differ in size (samples without a score): within = SSW / (N - a), between = (SSB / (a - 1) - within) / n0
    with n0 = (N - sum n_i**2 / N) / (a - 1) (Searle, Casella and McCulloch 1992, ch. 3.6). Unbiased, so that `between`
    may fall below 0 where there is none.
    """
    score_GK = score_P2K.reshape(-1, score_P2K.shape[2])
    told_GK = ~np.isnan(score_GK)
    score_GK, told_GK = score_GK[told_GK.any(1)], told_GK[told_GK.any(1)]
    size_G = told_GK.sum(1)
    groups, n = len(size_G), int(size_G.sum())
    if groups < 2 or n == groups:
        return Components(math.nan, math.nan)
    mean_G = np.where(told_GK, score_GK, 0.0).sum(1) / size_G
    within = float(np.sum(np.where(told_GK, score_GK - mean_G[:, None], 0.0) ** 2)) / (n - groups)
    grand = float(size_G @ mean_G) / n
    typical = (n - float(size_G @ size_G) / n) / (groups - 1)
    return Components(within, (float(size_G @ (mean_G - grand) ** 2) / (groups - 1) - within) / typical)
