"""What repeated answers tell of a prompt before anything is trained with it: spread, ties, and who is wrong how.

Shapes: P pairs, 2 sides, K answers a side (all samples of all seeds: draws of one distribution); NaN is an answer
without a score. Wherever a pair is compared, an answer without a score makes a tie (intention to treat).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from btrm.config import ConfigError
from btrm.metrics.bootstrap import Interval
from btrm.metrics.judged import JudgedCell
from btrm.metrics.pairwise import Floats, Ints, PairOutcomes, pair_outcomes, sides_of_samples
from btrm.metrics.panel import Panel

Bools = NDArray[np.bool_]
_COMPARED_AT_ONCE = 4_000_000
_BINS = 20


@dataclass(frozen=True, eq=False)
class Answers:
    """All answers with one prompt about the labelled pairs of a data set."""

    score_P2K: Floats
    asked_P2: Ints
    preferred_P: Ints
    cluster_P: Ints

    @classmethod
    def of(cls, cells: Sequence[JudgedCell]) -> Answers:
        """Lay the seeds of one prompt side by side; raise ConfigError where they are not about the same pairs."""
        first = cells[0]
        if any(cell.label_id_P != first.label_id_P for cell in cells):
            raise ConfigError(
                f"{first.prompt}, {first.dataset}: its seeds are not about the same pairs; judge them all"
            )
        score_P2K = np.concatenate([cell.score_P2K for cell in cells], axis=2)
        asked_P2 = np.sum([cell.asked_P2 for cell in cells], axis=0)
        return cls(score_P2K, asked_P2, first.preferred_P, first.cluster_P)

    @cached_property
    def outcomes(self) -> PairOutcomes:
        """The pairs by the mean scores of their sides; a side without any score makes a tie."""
        return pair_outcomes(sides_of_samples(self.score_P2K, self.asked_P2), self.preferred_P, 1.0, "tie")

    @property
    def wrong_P(self) -> Bools:
        """The pairs that the means order wrongly."""
        return self.outcomes.credit_P == 0

    @cached_property
    def scored_N(self) -> Floats:
        """All scores."""
        return self.score_P2K[~np.isnan(self.score_P2K)]


@dataclass(frozen=True, slots=True)
class Shares:
    """Of the pairs that are ordered wrongly: the share where one side at least is so, and where both are."""

    any: float
    both: float


def valid_rate(answers: Answers) -> float:
    """Return the share of all answers that hold a score; NaN where nothing was asked."""
    asked = int(answers.asked_P2.sum())
    return len(answers.scored_N) / asked if asked else math.nan


def within_std(answers: Answers) -> float:
    """Return the mean over responses of the sample standard deviation of their scores, sqrt(SS / (n - 1)).

    Responses with fewer than two scores tell nothing; NaN where all are so. A mean of deviations, not the root of a
    mean variance: it says by how much a typical response's scores differ.
    """
    score_GK = answers.score_P2K.reshape(-1, answers.score_P2K.shape[2])
    score_GK = score_GK[(~np.isnan(score_GK)).sum(1) > 1]
    return float(np.nanstd(score_GK, axis=1, ddof=1).mean()) if len(score_GK) else math.nan


def unique_scores(answers: Answers) -> float:
    """Return the mean number of different scores that a response gets, of those that get any; NaN where none does."""
    sorted_GK = np.sort(answers.score_P2K.reshape(-1, answers.score_P2K.shape[2]), axis=1)  # NaN stands last
    changes_G = (np.diff(sorted_GK, axis=1) > 0).sum(1)
    scored_G = ~np.isnan(sorted_GK[:, 0])
    return float((changes_G[scored_G] + 1).mean()) if scored_G.any() else math.nan


def sample_tie_rate(answers: Answers) -> float:
    """Return how often sample k of one side equals sample k of the other, where both have a score."""
    left_PK, right_PK = answers.score_P2K[:, 0], answers.score_P2K[:, 1]
    both_PK = ~np.isnan(left_PK) & ~np.isnan(right_PK)
    return float((left_PK == right_PK)[both_PK].mean()) if both_PK.any() else math.nan


def mean_tie_rate(answers: Answers) -> float:
    """Return how often the sides' mean scores are equal, of the pairs with a score on both sides."""
    margin_P = answers.outcomes.margin_P[~np.isnan(answers.outcomes.margin_P)]
    return float((margin_P == 0).mean()) if len(margin_P) else math.nan


@dataclass(frozen=True, slots=True)
class Correctness:
    """How one answer about each side, drawn from those that there are, would order a pair; the mean over pairs.

    `half` counts a tie 1/2: the accuracy to expect of a judge asked once. `strict` counts it 0.
    """

    half: float
    strict: float


def expected_correctness(answers: Answers) -> Correctness:
    """Compare all K x K pairs of answers of each pair: without bias, and with less noise than sample k against k.

    half = (#(preferred > other) + #ties / 2) / (asked x asked), the probability of superiority (Mann and Whitney 1947);
    a pair of answers of which one has no score is a tie.
    """
    n_pairs, _, n_samples = answers.score_P2K.shape
    row_P = np.arange(n_pairs)
    preferred_PK = answers.score_P2K[row_P, answers.preferred_P]
    other_PK = answers.score_P2K[row_P, 1 - answers.preferred_P]
    won_P, lost_P = np.zeros(n_pairs), np.zeros(n_pairs)
    step = max(_COMPARED_AT_ONCE // n_samples**2, 1)
    for some in (slice(start, start + step) for start in range(0, n_pairs, step)):
        preferred_PK1, other_P1K = preferred_PK[some, :, None], other_PK[some, None, :]
        won_P[some] = (preferred_PK1 > other_P1K).sum((1, 2))
        lost_P[some] = (preferred_PK1 < other_P1K).sum((1, 2))
    asked_P = answers.asked_P2.prod(1)
    if not asked_P.all() or not n_pairs:
        return Correctness(math.nan, math.nan)
    return Correctness(float((0.5 + (won_P - lost_P) / asked_P / 2).mean()), float((won_P / asked_P).mean()))


def accuracy_interval(answers: Answers, n_bootstrap: int, seed: int) -> Interval:
    """Return the 95 % interval of the accuracy of means, as `evaluate` makes it; NaN, NaN with one cluster alone."""
    panel = Panel([answers.outcomes.credit_P[:, None]], [], answers.cluster_P, n_bootstrap, seed)
    return panel.accuracy_interval(0)


def wrong_in_zone(answers: Answers, low: float, high: float) -> Shares:
    """Return, of wrong pairs, where a side's mean score lies in the uncertain zone [low, high].

    A wrong pair in the zone is one where the judge knew little; one outside is one where it was sure and wrong.
    """
    mean_P2 = sides_of_samples(answers.score_P2K, answers.asked_P2).means()
    return _shares((mean_P2 >= low) & (mean_P2 <= high), answers.wrong_P)


def wrong_at_extremes(answers: Answers, low: float, high: float) -> Shares:
    """Return, of wrong pairs, where a side's answers reach both ends: one at or below `low`, one at or above `high`."""
    low_P2, high_P2 = np.any(answers.score_P2K <= low, axis=2), np.any(answers.score_P2K >= high, axis=2)
    return _shares(np.logical_and(low_P2, high_P2), answers.wrong_P)


def wrong_ranges(answers: Answers, threshold: float) -> Shares:
    """Return, of wrong pairs, where a side's scores spread (largest less smallest) by `threshold` at least."""
    told_P2K = ~np.isnan(answers.score_P2K)
    largest_P2 = np.where(told_P2K, answers.score_P2K, -np.inf).max(2)
    smallest_P2 = np.where(told_P2K, answers.score_P2K, np.inf).min(2)
    return _shares(largest_P2 - smallest_P2 >= threshold, answers.wrong_P)


def _shares(side_P2: Bools, wrong_P: Bools) -> Shares:
    if not wrong_P.any():
        return Shares(math.nan, math.nan)
    of_wrong_P2 = side_P2[wrong_P]
    return Shares(float(of_wrong_P2.any(1).mean()), float(of_wrong_P2.all(1).mean()))


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of all scores between edges; the last bin holds its upper edge."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


def score_histogram(answers: Answers, low: float, high: float) -> Histogram:
    """Return the scores in bins of a twentieth of the scale."""
    counts, edges = np.histogram(answers.scored_N, bins=_BINS, range=(low, high))
    return Histogram(tuple(map(float, edges)), tuple(map(int, counts)))
