"""What k answers a side would be worth, from the n that there are: over all subsets of size k, not the first k.

Every subset of one side's answers meets every subset of the other's: answers about two responses are drawn
independently, and pairing them by number would only add noise. With up to 8 answers all subsets are taken; above, 32 of
each size, drawn with a fixed seed (the same for all pairs), where there are more than 70.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from btrm.metrics.pairwise import Floats, Ints, UnparsedAs, exact_quotient, in_units

_ALL = math.comb(8, 4)
_DRAWN = 32
_EVERY = 16  # every k up to here, then the largest alone
_AT_ONCE = 4_000_000  # comparisons held at a time


@dataclass(frozen=True, slots=True)
class AccuracyAt:
    """The accuracy of k answers a side, ties half; `exact`: over all subsets, not a draw of them."""

    k: int
    accuracy: float
    exact: bool


@dataclass(frozen=True, slots=True)
class MoreSamples:
    """Curves over k of the same pairs, those with the most answers on both sides.

    mean_at: sides are compared by the means of k answers. majority_at: each of one side's k answers is compared with
    each of the other's, and the majority of these k * k comparisons decides. One answer makes both the same.
    """

    mean_at: list[AccuracyAt]
    majority_at: list[AccuracyAt]


@dataclass(frozen=True, slots=True)
class _Answers:
    """Scores of the preferred side and of the other in millionths, shape (P, 2, K), and which answers hold a score."""

    units: Floats
    told: NDArray[np.bool_]


@dataclass(slots=True)
class _Tally:
    """Credits of comparisons, and how many there are."""

    unparsed: UnparsedAs
    credit: float = 0.0
    n: float = 0.0

    def add(self, lead_PSS: Floats, told_PSS: NDArray[np.bool_]) -> None:
        """Count comparisons by the sign of their lead; not `told` are those with a side without any score."""
        told, missing = float(np.count_nonzero(told_PSS)), float(np.count_nonzero(~told_PSS))
        lead = float(np.count_nonzero((lead_PSS > 0) & told_PSS)) - float(np.count_nonzero((lead_PSS < 0) & told_PSS))
        self.credit += (told + lead) / 2 + (missing / 2 if self.unparsed == "tie" else 0.0)
        self.n += told + (0.0 if self.unparsed == "drop" else missing)

    def at(self, k: int, exact: bool) -> AccuracyAt:
        """Return the mean credit."""
        return AccuracyAt(k, self.credit / self.n if self.n else math.nan, exact)


def more_samples(
    score_P2K: Floats, asked_P2: Ints, preferred_P: Ints, unparsed: UnparsedAs, scale: tuple[float, float]
) -> MoreSamples:
    """Return both curves for k = 1 .. n; `unparsed` and `scale` as for a pair's outcome, with a subset for the pair."""
    most, whole_P = score_P2K.shape[2], _whole(score_P2K, asked_P2)
    answers = _answers(score_P2K[whole_P], preferred_P[whole_P], unparsed, scale)
    found = MoreSamples([], [])
    for k in dict.fromkeys([*range(1, min(most, _EVERY) + 1), most] if most else []):
        members_KS = _subsets(most, k)
        exact = members_KS.shape[1] == math.comb(most, k)
        means, majorities = _Tally(unparsed), _Tally(unparsed)
        for chunk in _chunks(answers, members_KS.shape[1]):
            _compare(chunk, members_KS, means, majorities)
        found.mean_at.append(means.at(k, exact))
        found.majority_at.append(majorities.at(k, exact))
    return found


def aligned_accuracy(score_P2K: Floats, asked_P2: Ints, preferred_P: Ints, unparsed: UnparsedAs) -> float:
    """Return the mean credit of comparing sample j of one side with sample j of the other.

    It estimates what all pairs of samples estimate (mean_at k = 1), of the same pairs and with the same rule for
    answers without a score, with more noise: published tools report it.
    """
    whole_P = _whole(score_P2K, asked_P2)
    answers = _answers(score_P2K[whole_P], preferred_P[whole_P], "tie", (0.0, 0.0))
    tally = _Tally(unparsed)
    tally.add(answers.units[:, 0] - answers.units[:, 1], answers.told[:, 0] & answers.told[:, 1])
    return tally.at(1, exact=True).accuracy


def _whole(score_P2K: Floats, asked_P2: Ints) -> NDArray[np.bool_]:
    """Say which pairs were asked about with all samples on both sides."""
    return (asked_P2 == score_P2K.shape[2]).all(1)


def _answers(score_P2K: Floats, preferred_P: Ints, unparsed: UnparsedAs, scale: tuple[float, float]) -> _Answers:
    """Put the preferred side first; what hurts most stands for a missing score where `unparsed` says so."""
    order_P2 = np.stack([preferred_P, 1 - preferred_P], 1)
    score_P2K = np.take_along_axis(score_P2K, order_P2[:, :, None], axis=1)
    told = ~np.isnan(score_P2K)
    if unparsed == "wrong":
        score_P2K = np.where(told, score_P2K, np.array(scale)[None, :, None])
    return _Answers(in_units(score_P2K).astype(np.float64), told)


def _subsets(n: int, k: int) -> Floats:
    """Return members_KS: a column a subset of k of n answers, 1 where it holds the answer."""
    if math.comb(n, k) <= _ALL:
        chosen = np.array(list(combinations(range(n), k)))
    else:
        chosen = np.argsort(np.random.default_rng((n, k)).random((_DRAWN, n)), axis=1)[:, :k]
    members = np.zeros((len(chosen), n))
    np.put_along_axis(members, chosen, 1.0, axis=1)
    return members.T


def _chunks(answers: _Answers, subsets: int) -> Iterator[_Answers]:
    size = max(1, _AT_ONCE // subsets**2)
    for start in range(0, len(answers.units), size):
        yield _Answers(answers.units[start : start + size], answers.told[start : start + size])


def _compare(answers: _Answers, members_KS: Floats, means: _Tally, majorities: _Tally) -> None:
    """Let every subset of one side meet every subset of the other."""
    told = answers.told.astype(np.float64)
    scored = told @ members_KS
    told_PSS = (scored[:, 0, :, None] > 0) & (scored[:, 1, None, :] > 0)
    counted = members_KS.sum(0) if means.unparsed == "wrong" else scored
    mean = exact_quotient(answers.units @ members_KS, np.broadcast_to(counted, scored.shape))
    means.add(np.nan_to_num(mean[:, 0, :, None]) - np.nan_to_num(mean[:, 1, None, :]), told_PSS)
    votes = np.sign(answers.units[:, 0, :, None] - answers.units[:, 1, None, :])
    if means.unparsed != "wrong":
        votes = votes * told[:, 0, :, None] * told[:, 1, None, :]
    majorities.add(members_KS.T @ votes @ members_KS, told_PSS)
