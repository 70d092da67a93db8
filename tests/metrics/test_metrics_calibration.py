from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest

from btrm.metrics.calibration import calibrate, expected_error, fit_temperature, margin_bins
from btrm.metrics.voting import Votes, credit, majorities


def loss(agreed: np.ndarray, temperature: float) -> float:
    return float(np.mean(np.log1p(np.exp(-agreed / temperature))))


def test_the_temperature_of_a_drawn_sample_is_found_again() -> None:
    rng = np.random.default_rng(0)
    margin = rng.normal(0, 30, 40_000)
    side0 = (rng.random(40_000) < 1 / (1 + np.exp(-margin / 12))).astype(np.float64)
    fit = calibrate(margin, side0)
    assert fit.temperature == pytest.approx(12, rel=0.03)
    assert fit.ece < 0.01 and 0.3 < fit.log_loss < math.log(2)


def test_no_other_temperature_has_a_smaller_loss() -> None:
    agreed = np.array([30.0, -10, 5, 60, -2, 8, 0])
    best = fit_temperature(agreed)
    assert all(loss(agreed, best) <= loss(agreed, best * factor) for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2))


def test_margins_that_never_err_or_tell_nothing_have_a_limit() -> None:
    assert fit_temperature(np.array([1.0, 2.0, 0.0])) == 0
    assert fit_temperature(np.array([1.0, -2.0])) == math.inf
    never = calibrate(np.array([5.0, -5.0, 0.0]), np.array([1.0, 0.0, 1.0]))
    assert never.log_loss == pytest.approx(math.log(2) / 3) and never.ece == pytest.approx(0.5 / 3)
    nothing = calibrate(np.array([5.0, -9.0]), np.array([1.0, 1.0]))
    assert nothing.log_loss == pytest.approx(math.log(2))
    assert math.isnan(calibrate(np.array([]), np.array([])).log_loss)


def test_the_calibration_error_weighs_bins_by_their_counts() -> None:
    chance = np.array([0.95, 0.95, 0.95, 0.15])
    assert expected_error(chance, np.array([1.0, 1.0, 0.0, 0.0])) == pytest.approx((abs(2.85 - 2) + 0.15) / 4)
    assert expected_error(np.array([1.0]), np.array([1.0])) == 0


def test_bins_of_margins_hold_every_pair_once() -> None:
    found = margin_bins(np.array([0.0, 9.0, -10.0, 100.0, -100.0, 55.0]), 100)
    assert [row.n for row in found] == [2, 1, 0, 0, 0, 1, 0, 0, 0, 2]
    assert [found[0].accuracy, found[1].accuracy, found[9].accuracy] == [0.75, 0, 0.5]


def test_a_margin_on_an_edge_lies_above_it_whatever_its_float() -> None:
    edges = [round(0.4 * place, 1) for place in range(10)]
    assert np.linspace(0, 4, 11)[3] > 1.2
    assert [row.n for row in margin_bins(np.array([*edges, 4.1 - 3.7, 3.7 - 2.5]), 4)] == [1, 2, 1, 2, *[1] * 6]


def drawn_credit(votes: Votes, k: int) -> float:
    """The same by going through every subset."""
    answers = [1] * votes.right + [-1] * votes.wrong + [0] * votes.tied + [None] * votes.none
    credits: list[float] = []
    for subset in itertools.combinations(answers, k):
        said = [vote for vote in subset if vote is not None]
        credits.append(0.0 if not said else 0.5 + 0.5 * ((sum(said) > 0) - (sum(said) < 0)))
    return sum(credits) / len(credits)


def test_a_majority_of_k_is_the_mean_over_all_subsets() -> None:
    drawn = random.Random(0)
    for _ in range(60):
        votes = Votes(*(drawn.randint(0, 3) for _ in range(4)))
        for k in range(1, votes.n + 1):
            assert credit(votes, k) == pytest.approx(drawn_credit(votes, k)), (votes, k)


def test_majorities_are_over_one_set_of_pairs() -> None:
    """Pairs with fewer answers are in no row: a curve over k would else be one over pairs."""
    found = majorities([Votes(2, 1, 0, 0), Votes(1, 0, 0, 0), Votes(0, 2, 0, 1)])
    assert [(row.k, row.pairs) for row in found] == [(1, 2), (2, 2), (3, 2)]
    assert [row.accuracy for row in found] == pytest.approx([1 / 3, 1 / 3, 1 / 2])
    assert majorities([]) == []
    assert [row.k for row in majorities([Votes(30, 10, 0, 0)])] == [*range(1, 17), 40]
