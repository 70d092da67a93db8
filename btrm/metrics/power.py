"""What a paired comparison could have found, and what would settle it: more pairs, or more judging seeds.

The variance of a difference of means has two parts. One comes from which pairs were drawn, and shrinks with more pairs
alone. The other comes from the judge's own sampling, and shrinks with more seeds too:

    se^2 = between + (within_a / seeds_a + within_b / seeds_b)

with both parts at the pairs at hand. A difference d is found with the wanted power where |d| >= reach * se, reach being
the normal quantile of 1 - alpha / 2 plus that of the power (Cohen 1988, ch. 2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from btrm.metrics.bootstrap import student_quantile
from btrm.metrics.pairwise import Floats, Ints

ALPHA, POWER = 0.05, 0.8


@dataclass(frozen=True, slots=True)
class Variance:
    """The variance of a mean difference: all of it, and what one seed a judge would add by the judges' own sampling.

    `sampling` is the judges' part as it is now, at the seeds that there are. Both are NaN where no judge has two seeds.
    """

    total: float
    one_seed: float
    sampling: float

    @property
    def between(self) -> float:
        """What no number of seeds takes away."""
        return max(self.total - self.sampling, 0.0)  # NaN stays NaN


def reach(alpha: float = ALPHA, power: float = POWER) -> float:
    """Return how many standard errors a difference must have to be found with this power."""
    normal = NormalDist()
    return normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)


def detectable(variance: float, n_clusters: int) -> float:
    """Return the smallest difference that Student's test over so many clusters finds with 80 % power."""
    reached = sum(student_quantile(chance, n_clusters - 1) for chance in (1 - ALPHA / 2, POWER))
    return reached * math.sqrt(variance)


def more_pairs(difference: float, variance: float, n_pairs: int) -> float:
    """Return how many pairs more would find a difference as large as the one seen; infinite for none."""
    if math.isnan(variance) or difference == 0:
        return math.nan if math.isnan(variance) else math.inf
    return max(0.0, math.ceil(n_pairs * variance * (reach() / difference) ** 2 - n_pairs))


def more_seeds(difference: float, variance: Variance, n_seeds: int) -> float:
    """Return how many judging seeds more would do; infinite where none would, NaN where nothing tells yet."""
    if math.isnan(variance.sampling) or math.isnan(variance.total):
        return math.nan
    room = (difference / reach()) ** 2 - variance.between
    return max(0.0, math.ceil(variance.one_seed / room - 1e-9) - n_seeds) if room > 0 else math.inf


def seed_variance(credit_PS: Floats, cluster_P: Ints | None = None) -> tuple[float, int]:
    """Return (the variance that one seed adds to a judge's mean, the most seeds of a pair).

    Draws of different clusters (0..C-1; none: each pair is one) are independent, those of one are not: an answer about
    one response serves all pairs in which it stands. So the mean's variance is the sum over clusters of the sample
    variance (ddof=1) of the cluster's summed credits over P^2, P the pairs with a credit. Pairs with one seed take the
    mean of the others; NaN where no pair has two.
    """
    n_P = np.sum(~np.isnan(credit_PS), axis=1)
    several = n_P > 1
    if not several.any():
        return math.nan, int(n_P.max(initial=0))
    credit_QS, n_Q = credit_PS[several], n_P[several]
    away_QS = np.nan_to_num((credit_QS - np.nanmean(credit_QS, axis=1, keepdims=True)) / np.sqrt(n_Q - 1)[:, None])
    cluster_Q = np.flatnonzero(several) if cluster_P is None else cluster_P[several]
    away_SC = np.stack([np.bincount(cluster_Q, away_Q) for away_Q in away_QS.T])
    return float(np.sum(away_SC**2)) / len(n_Q) / int(np.count_nonzero(n_P)), int(n_P.max())
