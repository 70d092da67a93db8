"""Does a judge know when it is right? |margin| as confidence: calibration, ranking, and what abstaining would buy."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from btrm.metrics.bootstrap import Interval
from btrm.metrics.correlation import ranks
from btrm.metrics.crossfit import Fitted
from btrm.metrics.official_score import Estimate, interval
from btrm.metrics.pairwise import Floats, Ints, PairOutcomes

_BINS = 10
_POINTS = 100


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Pairs with low <= confidence < high (the last bin: <= high): mean confidence, and how often it was right."""

    low: float
    high: float
    n: int
    chance: float
    frequency: float


@dataclass(frozen=True, slots=True)
class RiskAt:
    """The share of the most confident pairs that is covered, and the error among them (a tie is half an error)."""

    coverage: float
    risk: float


def reliability(fitted: Fitted, outcomes: PairOutcomes, bins: int = _BINS) -> list[ReliabilityBin]:
    """Return equal bins of the confidence sigma(|margin| / T) over [1/2, 1]; NaN where a bin is empty.

    The confidence of the preferred side, not the chance of side 0, so that it does not depend on which side is which.
    Pairs with a score on both sides alone: ties that stand for missing answers are right half the time at confidence
    1/2, and a judge would look the better calibrated the more of its answers fail.
    """
    told_P = ~np.isnan(fitted.confidence_P) & ~outcomes.unparsed_P
    confidence_N, credit_N = fitted.confidence_P[told_P], outcomes.credit_P[told_P]
    place_N = np.clip(((confidence_N - 0.5) * 2 * bins).astype(np.int64), 0, bins - 1)
    summed = (np.ones(len(place_N)), confidence_N, credit_N)
    count_B, chance_B, right_B = (np.bincount(place_N, values_N, bins) for values_N in summed)
    edges = np.linspace(0.5, 1.0, bins + 1)
    with np.errstate(invalid="ignore"):
        rows = zip(edges[:-1], edges[1:], count_B, chance_B / count_B, right_B / count_B, strict=True)
    return [ReliabilityBin(float(low), float(high), int(n), float(p), float(f)) for low, high, n, p, f in rows]


def calibration_error(bins: list[ReliabilityBin]) -> float:
    """Return the expected calibration error (Naeini, Cooper and Hauskrecht 2015; of confidence: Guo et al. 2017).

    The mean distance between confidence and frequency over the bins, weighted by their counts. It is 0 only in
    expectation over endless pairs: a calibrated judge shows about 1/2 sqrt(bins / n).
    """
    full = [b for b in bins if b.n]
    n = sum(b.n for b in full)
    return math.fsum(b.n * abs(b.chance - b.frequency) for b in full) / n if n else math.nan


def auc_of_margin(outcomes: PairOutcomes) -> float:
    """Return the chance that a right pair has a larger |margin| than a wrong one, equal ones half.

    That is the area under the ROC curve of |margin| as a sign of being right (Hanley and McNeil 1982), from the ranks'
    sum (Mann and Whitney 1947). Tied and unscored pairs are neither right nor wrong; NaN where all others are one.
    """
    found = _auc(outcomes)
    return math.nan if found is None else found.value


def auc_interval(outcomes: PairOutcomes, cluster_P: Ints) -> Interval:
    """Return the 95 % interval of the AUC, pairs of one cluster together (NaN where it is undefined).

    The variance is that of placements (DeLong, DeLong and Clarke-Pearson 1988) summed by cluster (Obuchowski 1997).
    """
    found = _auc(outcomes)
    return Interval(math.nan, math.nan) if found is None else interval(found, cluster_P)


def _auc(outcomes: PairOutcomes) -> Estimate | None:
    """Return the AUC; a pair's influence is its placement (the share of the other kind that it beats) less that."""
    decided_P = outcomes.kept_P & ~outcomes.unparsed_P & (outcomes.counted_P != 0)
    size_P, rank_P = np.abs(outcomes.counted_P), np.zeros(len(decided_P))
    rank_P[decided_P] = ranks(size_P[decided_P])
    right, wrong = (np.flatnonzero(decided_P & (sign * outcomes.counted_P > 0)) for sign in (1, -1))
    if not len(right) or not len(wrong):
        return None
    above_right = (rank_P[right] - ranks(size_P[right])) / len(wrong)
    above_wrong = 1 - (rank_P[wrong] - ranks(size_P[wrong])) / len(right)
    value, influence_P = float(above_right.mean()), np.zeros(len(decided_P))
    influence_P[right], influence_P[wrong] = (above_right - value) / len(right), (above_wrong - value) / len(wrong)
    return Estimate(value, decided_P, influence_P)


def risks(outcomes: PairOutcomes) -> Floats:
    """Return risk_N: the error among the n most confident pairs, n = 1 .. N (El-Yaniv and Wiener 2010).

    Where several have one |margin|, it is the mean over all their orders: luck in sorting decides nothing.
    """
    kept_P = outcomes.kept_P
    confidence_N, error_N = np.abs(outcomes.counted_P[kept_P]), 1 - outcomes.credit_P[kept_P]
    _, place_N, count = np.unique(-confidence_N, return_inverse=True, return_counts=True)
    mean = np.bincount(place_N.ravel(), error_N) / count
    return np.cumsum(np.repeat(mean, count)) / np.arange(1, len(error_N) + 1)


def area_under_risk(risk_N: Floats) -> float:
    """Return the AURC, the mean risk over all coverages (Geifman, Uziel and El-Yaniv 2019); NaN without pairs."""
    return float(risk_N.mean()) if len(risk_N) else math.nan


def risk_coverage(risk_N: Floats) -> list[RiskAt]:
    """Return the risks at coverages 1 %, 2 % ... 100 %, each at the next whole pair (fewer where there are fewer)."""
    n = len(risk_N)
    counts = np.unique(np.ceil(np.arange(1, _POINTS + 1) * n / _POINTS).astype(np.int64))
    return [RiskAt(float(count / n), float(risk_N[count - 1])) for count in counts if count]
