"""Which of two judges is better, on the same labelled pairs.

A judge's credit for a pair is 1 (right), 1/2 (a tie) or 0, one column a judging seed. Seeds are replicates of a pair:
they are averaged within it, and pairs are drawn, in whole clusters (all pairs of one prompt). The judge's own sampling
is counted by that: its draws are independent from cluster to cluster, so what they add shows as spread between them.
Drawing seeds as well would count it twice (Owen 2007 on the pigeonhole bootstrap).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from btrm.metrics.bootstrap import student_tail, told_tail
from btrm.metrics.few_contexts import PERCENTILES_FROM, difference_interval
from btrm.metrics.pairwise import Floats, Ints
from btrm.metrics.panel import PairMean, Panel
from btrm.metrics.power import ALPHA, Variance, detectable, more_pairs, more_seeds
from btrm.metrics.significance import holm, mcnemar

_PRACTICAL = 1_000_000  # pairs that nobody labels for one question
_FEWEST = 6  # clusters: of fewer, even signs that are all alike have a p above 0.05


@dataclass(frozen=True, slots=True)
class Comparison:
    """Judge a less judge b, over the pairs that both have a credit for; NaN is undefined.

    low, high: 95 % interval by the paired cluster bootstrap, by Student's t with the jackknife's error where there are
    few clusters (few_contexts); p_bootstrap: its two-sided p-value. p_mcnemar (mid-p) and p_mcnemar_exact count
    clusters: wins are those where a has more credit than b, losses those where it has less.
    p_holm: p_bootstrap adjusted for all comparisons that were made together (Holm 1979), NaN for one alone.
    mde: the least difference that is found with 80 % power (NaN: all clusters differ alike, or are too few to find
    any); pairs_needed, seeds_needed: how many more of each would find a difference as large as this one (0: it is
    found; inf: none would; NaN seeds: nobody has two to learn from).
    """

    n_pairs: int
    n_clusters: int
    seeds_a: int
    seeds_b: int
    difference: float
    low: float
    high: float
    p_bootstrap: float
    wins: int
    losses: int
    p_mcnemar: float
    p_mcnemar_exact: float
    mde: float
    pairs_needed: float
    seeds_needed: float
    p_holm: float = math.nan


def compare(
    a_PS: Floats, b_PS: Floats, cluster_P: Ints | None = None, n_bootstrap: int = 10_000, seed: int = 0
) -> Comparison:
    """Compare two judges by their credits (NaN: no credit); the seeds of a and of b need not be as many."""
    return compare_all([a_PS, b_PS], [(0, 1)], cluster_P, n_bootstrap, seed)[0]


def compare_all(
    credits: Sequence[Floats],
    wanted: Sequence[tuple[int, int]],
    cluster_P: Ints | None = None,
    n_bootstrap: int = 10_000,
    seed: int = 0,
) -> list[Comparison]:
    """Compare judges by their places (a, b) in `credits`, each (P, S); all see the same resamples. p_holm stays NaN."""
    panel = Panel(credits, wanted, cluster_P, n_bootstrap, seed)
    return [comparison(panel, a, b) for a, b in wanted]


def adjusted(comparisons: Sequence[Comparison], unseen: int = 0) -> list[Comparison]:
    """Return the comparisons with p_holm over all of them, and over `unseen` ones with larger p-values."""
    adjusted_p = holm([*(comparison.p_bootstrap for comparison in comparisons), *[1.0] * unseen])[: len(comparisons)]
    return [replace(c, p_holm=p) for c, p in zip(comparisons, adjusted_p, strict=True)]


def comparison(panel: Panel, a: int, b: int) -> Comparison:
    """Return the comparison of two judges of a panel, one that it was made for; p_holm stays NaN."""
    difference, difference_B = panel.differences[a, b], panel.resampled(a, b)
    n_pairs, n_clusters, value = difference.n_pairs, difference.n_clusters, difference.value
    variance, seeds = _variance(difference.variance(), panel.seeds(a), panel.seeds(b))
    error = difference.error
    interval = difference_interval(value, error, difference_B, n_clusters)
    wins, losses = (int(np.sum(sign * difference.sums > 1e-12)) for sign in (1, -1))
    exact, mid = mcnemar(wins, losses)
    p_value = _p_value(value, difference_B, error, n_clusters)
    needed = (0.0, 0.0) if p_value < ALPHA else _needed(difference, variance, min(seeds))
    return Comparison(
        n_pairs=n_pairs,
        n_clusters=n_clusters,
        seeds_a=seeds[0],
        seeds_b=seeds[1],
        difference=value,
        low=interval.low,
        high=interval.high,
        p_bootstrap=p_value,
        wins=wins,
        losses=losses,
        p_mcnemar=mid if n_pairs else math.nan,
        p_mcnemar_exact=exact if n_pairs else math.nan,
        mde=detectable(variance.total, n_clusters) if error > 0 and n_clusters >= _FEWEST else math.nan,
        pairs_needed=needed[0],
        seeds_needed=needed[1],
    )


def _needed(difference: PairMean, variance: Variance, n_seeds: int) -> tuple[float, float]:
    """Return how many pairs, and how many seeds, more would find a difference: with too few clusters pairs alone."""
    n_pairs, n_clusters = difference.n_pairs, difference.n_clusters
    pairs = more_pairs(difference.value, variance.total, n_pairs)
    seeds = more_seeds(difference.value, variance, n_seeds)
    if math.isnan(pairs) or n_clusters >= _FEWEST:
        return pairs, seeds
    return max(pairs, math.ceil(n_pairs * (_FEWEST / n_clusters - 1))), seeds if math.isnan(seeds) else math.inf


def rough(needed: float) -> str:
    """Write how many more would be needed with the two digits that such an estimate has at best.

    "none" stands for more than a million: no practical number. Nothing where it is not defined.
    """
    if math.isnan(needed) or needed <= 0:
        return "" if math.isnan(needed) else "0"
    return "none" if needed > _PRACTICAL else f"{round(needed, 1 - math.floor(math.log10(needed))):,.0f}"


def more_in_words(pairs_needed: float) -> str:
    """Say how many more pairs might tell two judges apart; nothing where that is not known, or none are needed."""
    if math.isnan(pairs_needed) or pairs_needed <= 0:
        return ""
    if pairs_needed > _PRACTICAL:
        return "no practical number of pairs would"
    return f"about {rough(pairs_needed)} more pairs of new contexts might"


def _variance(total: float, a: tuple[float, int], b: tuple[float, int]) -> tuple[Variance, tuple[int, int]]:
    """Split a variance; a judge with one seed alone adds what the other adds, where that one has several."""
    (one_a, seeds_a), (one_b, seeds_b) = a, b
    one_a, one_b = (one_b if math.isnan(one_a) else one_a), (one_a if math.isnan(one_b) else one_b)
    sampling = one_a / max(seeds_a, 1) + one_b / max(seeds_b, 1)
    return Variance(total, one_a + one_b, sampling), (seeds_a, seeds_b)


def _p_value(value: float, difference_B: Floats, error: float, n_clusters: int) -> float:
    """Return the two-sided p: twice the share of resamples on the other side of zero, by Student's t.

    So it is below 0.05 where the interval holds no zero. Where fewer resamples lie there than can be counted, and with
    few clusters, the standard error tells how far below. Never less than a test that flips the signs of the clusters
    could give.
    """
    told_B = difference_B[~np.isnan(difference_B)]
    if n_clusters < 2 or not len(told_B):
        return math.nan
    share = (1 + min(int(np.sum(told_B <= 0)), int(np.sum(told_B >= 0)))) / (len(told_B) + 1)
    tail = told_tail(min(share, 0.5), n_clusters)
    if error > 0 and (n_clusters < PERCENTILES_FROM or share <= 1 / (len(told_B) + 1)):
        by_error = student_tail(abs(value) / error, n_clusters - 1)
        tail = by_error if n_clusters < PERCENTILES_FROM else min(tail, by_error)
    return min(1.0, max(2 * tail, 2.0 ** (1 - n_clusters)))
