from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from btrm.metrics.more_samples import AccuracyAt, aligned_accuracy, more_samples
from btrm.metrics.pairwise import UnparsedAs
from tests.metrics.made_cells import made_cell

Side = tuple[float, ...]
Judge = Callable[[Side, Side, UnparsedAs], float | None]


def scores(pairs: int, samples: int, missing: float = 0.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    score = np.rint(rng.normal(50, 4, (pairs, 2, samples)) + np.array([[2.0], [0.0]]))
    return np.where(rng.random(score.shape) < missing, np.nan, score)


def curves(score: np.ndarray, unparsed: UnparsedAs = "tie") -> tuple[list[AccuracyAt], list[AccuracyAt]]:
    cell = made_cell(score)
    found = more_samples(cell.score_P2K, cell.asked_P2, cell.preferred_P, unparsed, (0.0, 100.0))
    return found.mean_at, found.majority_at


def filled(answers: Side, hurts: float, unparsed: UnparsedAs) -> list[float]:
    told = [x for x in answers if x == x]
    return told if unparsed != "wrong" else [hurts if x != x else x for x in answers]


def missing(one: Side, other: Side, unparsed: UnparsedAs) -> float | None:
    """The credit where a side has no score at all."""
    assert not any(x == x for x in one) or not any(x == x for x in other)
    return {"tie": 0.5, "wrong": 0.0, "drop": None}[unparsed]


def by_means(one: Side, other: Side, unparsed: UnparsedAs) -> float | None:
    if not any(x == x for x in one) or not any(x == x for x in other):
        return missing(one, other, unparsed)
    lead = statistics.fmean(filled(one, 0.0, unparsed)) - statistics.fmean(filled(other, 100.0, unparsed))
    return 0.5 if abs(lead) < 1e-9 else float(lead > 0)


def by_majority(one: Side, other: Side, unparsed: UnparsedAs) -> float | None:
    if not any(x == x for x in one) or not any(x == x for x in other):
        return missing(one, other, unparsed)
    met = itertools.product(filled(one, 0.0, unparsed), filled(other, 100.0, unparsed))
    votes = sum((a > b) - (a < b) for a, b in met)
    return 0.5 + 0.5 * (votes > 0) - 0.5 * (votes < 0)


def by_hand(score: np.ndarray, k: int, judge: Judge, unparsed: UnparsedAs) -> float:
    def credits() -> Iterator[float | None]:
        for one, other in score.tolist():
            for mine in itertools.combinations(one, k):
                for theirs in itertools.combinations(other, k):
                    yield judge(mine, theirs, unparsed)

    return statistics.fmean(credit for credit in credits() if credit is not None)


@pytest.mark.parametrize("unparsed", ["tie", "wrong", "drop"])
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_every_subset_of_one_side_meets_every_one_of_the_other(unparsed: UnparsedAs, missing: float) -> None:
    score = scores(6, 4, missing)
    for judge, curve in zip((by_means, by_majority), curves(score, unparsed), strict=True):
        assert [at.k for at in curve] == [1, 2, 3, 4] and all(at.exact for at in curve)
        expected = [by_hand(score, k, judge, unparsed) for k in (1, 2, 3, 4)]
        assert [at.accuracy for at in curve] == pytest.approx(expected)


def test_the_ends_of_the_curves() -> None:
    score = scores(200, 6)
    mean_at, majority_at = curves(score)
    assert mean_at[0] == majority_at[0]
    lead = score[:, 0].mean(1) - score[:, 1].mean(1)
    assert mean_at[-1].accuracy == pytest.approx(np.mean(0.5 + 0.5 * np.sign(np.where(abs(lead) < 1e-9, 0, lead))))
    all_pairs = np.sign(score[:, 0, :, None] - score[:, 1, None, :])
    assert mean_at[0].accuracy == pytest.approx(np.mean(0.5 + 0.5 * all_pairs))


def test_the_number_of_a_sample_and_of_a_side_change_nothing() -> None:
    score = scores(40, 5, 0.1)
    shuffled = np.random.default_rng(1).permuted(score, axis=2)
    assert curves(score) == curves(shuffled)
    cell = made_cell(score[:, ::-1], np.ones(40, dtype=np.int64))
    turned = more_samples(cell.score_P2K, cell.asked_P2, cell.preferred_P, "tie", (0.0, 100.0))
    assert (turned.mean_at, turned.majority_at) == curves(score)


def test_above_eight_answers_subsets_are_drawn_and_the_curve_is_that_of_all() -> None:
    score = scores(20, 9)
    mean_at, majority_at = curves(score)
    assert [at.k for at in mean_at if at.exact] == [1, 2, 7, 8, 9]
    for curve, judge in ((mean_at, by_means), (majority_at, by_majority)):
        assert curve[2].accuracy == pytest.approx(by_hand(score, 3, judge, "tie"), abs=0.01)
    assert curves(score) == (mean_at, majority_at)


def test_curves_are_what_new_samples_would_give() -> None:
    """One side's mean of k answers is N(2, 16 / k) above the other's: the chance to lead is known."""
    rng = np.random.default_rng(0)
    score = rng.normal(0, 4, (4000, 2, 6)) + np.array([[2.0], [0.0]])
    known = {k: statistics.NormalDist(2, (2 * 16 / k) ** 0.5) for k in (1, 2, 4, 6)}
    mean_at = {at.k: at.accuracy for at in curves(score + 50)[0]}
    assert [mean_at[k] for k in known] == pytest.approx([1 - x.cdf(0) for x in known.values()], abs=0.015)


def _asked(score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As many answers as there are samples, and the first side preferred."""
    return np.full(score.shape[:2], score.shape[2]), np.zeros(len(score), dtype=np.int64)


@pytest.mark.parametrize(("unparsed", "expected"), [("tie", 0.75), ("wrong", 0.5), ("drop", 1.0)])
def test_aligned_answers_follow_the_rule_for_those_without_a_score(unparsed: UnparsedAs, expected: float) -> None:
    score = np.array([[[90.0, np.nan], [10.0, 20.0]], [[80.0, 70.0], [np.nan, 20.0]]])
    assert aligned_accuracy(score, *_asked(score), unparsed) == expected
    asked, preferred = _asked(score)
    asked[0, 0] = 1  # not a failure, but never asked: that pair does not count
    assert aligned_accuracy(score, asked, preferred, unparsed) == expected


def test_aligned_answers_estimate_the_same_with_more_noise() -> None:
    found = []
    for seed in range(300):
        score = scores(30, 4, seed=seed)
        found.append((curves(score)[0][0].accuracy, aligned_accuracy(score, *_asked(score), "tie")))
    all_pairs, aligned = np.array(found).T
    assert all_pairs.mean() == pytest.approx(aligned.mean(), abs=0.01)
    assert all_pairs.var() < aligned.var()


def test_only_pairs_with_all_answers_count() -> None:
    score = scores(5, 3)
    cell = made_cell(score)
    asked = cell.asked_P2.copy()
    asked[0, 1] = 2
    found = more_samples(cell.score_P2K, asked, cell.preferred_P, "tie", (0.0, 100.0))
    assert (found.mean_at, found.majority_at) == curves(score[1:])
