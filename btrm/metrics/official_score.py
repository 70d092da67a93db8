"""A score as the authors of a benchmark define it, with an interval of ours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from btrm.metrics.bootstrap import Interval, student_quantile
from btrm.metrics.pairwise import Floats, Ints

Bools = NDArray[np.bool_]
_TAIL = 0.975


@dataclass(frozen=True, slots=True)
class OfficialScore:
    """One figure as the benchmark names it, in 0..1 (more is better), over `n` of its prompts.

    `low` and `high` bound it at 95 %; NaN where nobody has worked that out.
    """

    name: str
    value: float
    n: int
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True, eq=False)
class Estimate:
    """A sum of means over prompts. Of all G prompts, `of_G` count; `influence_G` is what each adds to value's error."""

    value: float
    of_G: Bools
    influence_G: Floats

    @property
    def n(self) -> int:
        """How many prompts count."""
        return int(self.of_G.sum())


def mean_of(credit_G: Floats, of_G: Bools) -> Estimate | None:
    """Return the mean credit of the prompts in `of_G`; None where there are none.

    Errors from a mean of n are too small by sqrt((n - 1) / n) on average, which the influences make up for.
    """
    n = int(of_G.sum())
    if not n:
        return None
    value = float(credit_G[of_G].mean())
    return Estimate(value, of_G, np.where(of_G, credit_G - value, 0.0) / math.sqrt(n * max(n - 1, 1)))


def weighted_sum(weighted: Sequence[tuple[float, Estimate | None]]) -> Estimate | None:
    """Return the sum of estimates times their weights; None where one of them is None."""
    known = [(weight, part) for weight, part in weighted if part is not None]
    if len(known) < len(weighted) or not known:
        return None
    value = sum(weight * part.value for weight, part in known)
    of_G = np.logical_or.reduce([part.of_G for _, part in known])
    return Estimate(value, of_G, np.sum([weight * part.influence_G for weight, part in known], 0))


def mean_of_parts(parts: Sequence[tuple[float, Estimate | None]]) -> Estimate | None:
    """Return the mean of those estimates that there are, by their weights; None without any."""
    known = [(weight, part) for weight, part in parts if part is not None]
    total = sum(weight for weight, _ in known)
    return weighted_sum([(weight / total, part) for weight, part in known])


def named(name: str, estimate: Estimate | None, cluster_G: Ints) -> list[OfficialScore]:
    """Return the estimate as a score with its interval; nothing for None."""
    if estimate is None:
        return []
    found = interval(estimate, cluster_G)
    return [OfficialScore(name, estimate.value, estimate.n, found.low, found.high)]


def with_mean(
    name: str, parts: Mapping[str, Estimate | None], cluster_G: Ints, published: int | None = None
) -> list[OfficialScore]:
    """Return the plain mean of all parts, and the parts.

    The mean's name says which parts are missing, and where there are fewer prompts than the benchmark has `published`.
    """
    absent = [part for part, found in parts.items() if found is None]
    title = f"{name} without {', '.join(absent)}" if absent else name
    mean = mean_of_parts([(1.0, found) for found in parts.values()])
    if mean is not None and published is not None and mean.n < published:
        title += f" ({mean.n} of {published} prompts)"
    of_parts = [score for part, found in parts.items() for score in named(f"{name} {part}", found, cluster_G)]
    return named(title, mean, cluster_G) + of_parts


def interval(estimate: Estimate, cluster_G: Ints) -> Interval:
    """Return the 95 % interval of an estimate over prompts of which those of one cluster are not independent.

    The variance is that of the clusters' summed influences (linearised, subsets as they are); the interval is Wilson's
    (1927) for the number of independent prompts that would have that variance, as survey statistics does for shares
    (Korn and Graubard 1998), with Student's quantile. Where all credits are alike it is that of as many prompts as
    there are clusters.
    """
    _, code_G = np.unique(cluster_G[estimate.of_G], return_inverse=True)
    n_clusters = int(code_G.max(initial=-1)) + 1
    if n_clusters < 2:
        return Interval(math.nan, math.nan)
    total_C = np.bincount(code_G, estimate.influence_G[estimate.of_G])
    variance = n_clusters / (n_clusters - 1) * float(total_C @ total_C)
    share = min(max(estimate.value, 0.0), 1.0)
    spread = share * (1 - share)
    n = spread / variance if spread > 0 and variance > 1e-12 else float(n_clusters)
    squared = student_quantile(_TAIL, n_clusters - 1) ** 2 / n
    half = math.sqrt(squared * spread + squared**2 / 4)
    low, high = ((share + squared / 2 + sign * half) / (1 + squared) for sign in (-1, 1))
    return Interval(min(max(low, 0.0), estimate.value), max(min(high, 1.0), estimate.value))
