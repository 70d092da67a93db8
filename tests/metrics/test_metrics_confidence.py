from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import auc, roc_auc_score

from btrm.metrics.confidence import (
    area_under_risk,
    auc_interval,
    auc_of_margin,
    calibration_error,
    reliability,
    risk_coverage,
    risks,
)
from btrm.metrics.crossfit import cross_fit
from btrm.metrics.pairwise import PairOutcomes
from tests.metrics.made_cells import from_margins, measured


def outcomes(margin: np.ndarray) -> PairOutcomes:
    return measured(from_margins(margin)).outcomes


def noisy(n: int, seed: int = 0) -> np.ndarray:
    """Whole margins with many ties, larger ones oftener right."""
    return np.rint(np.random.default_rng(seed).normal(4, 9, n))


def test_auc_is_that_of_scikit_learn() -> None:
    margin = noisy(2000)
    decided = margin[margin != 0]
    assert auc_of_margin(outcomes(margin)) == pytest.approx(roc_auc_score(decided > 0, np.abs(decided)))


def test_auc_needs_right_and_wrong_pairs() -> None:
    assert math.isnan(auc_of_margin(outcomes(np.array([3.0, 0.0, 5.0]))))
    assert auc_of_margin(outcomes(np.array([3.0, -3.0]))) == 0.5
    assert auc_of_margin(outcomes(np.array([3.0, -2.0, 0.0]))) == 1.0


@pytest.mark.parametrize("size", [1, 5])
def test_the_interval_of_the_auc_is_about_that_of_a_bootstrap_over_clusters(size: int) -> None:
    rng = np.random.default_rng(size)
    cluster = np.repeat(np.arange(300), size)
    margin = np.rint(10 * (0.4 + rng.standard_normal(300)[cluster] + rng.standard_normal(len(cluster))))
    values = []
    for _ in range(400):
        chosen = np.concatenate([np.arange(c * size, (c + 1) * size) for c in rng.integers(0, 300, 300)])
        values.append(auc_of_margin(outcomes(margin[chosen])))
    found = auc_interval(outcomes(margin), cluster)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])), abs=0.012)


def test_an_auc_without_wrong_pairs_or_clusters_has_no_interval() -> None:
    assert math.isnan(auc_interval(outcomes(np.array([3.0, 0.0, 5.0])), np.arange(3)).low)
    assert math.isnan(auc_interval(outcomes(np.array([3.0, -2.0, 5.0])), np.zeros(3, dtype=np.int64)).low)


def test_bins_are_those_of_scikit_learn_over_both_sides() -> None:
    margin = noisy(3000)
    margin = margin[margin != 0]
    found = measured(from_margins(margin))
    chance = 1 / (1 + np.exp(-np.abs(found.fitted.logit_P)))
    right = margin > 0
    both, label = np.concatenate([chance, 1 - chance]), np.concatenate([right, ~right])
    frequency, mean = calibration_curve(label, both, n_bins=20)
    bins = [b for b in found.reliability if b.n]
    assert [b.frequency for b in bins] == pytest.approx(frequency[-len(bins) :])
    assert [b.chance for b in bins] == pytest.approx(mean[-len(bins) :])
    assert sum(b.n for b in bins) == len(margin)


def test_a_calibrated_judge_has_no_error_and_an_overconfident_one_has() -> None:
    rng = np.random.default_rng(0)
    margin = rng.normal(0, 30, 20_000)
    margin = np.where(rng.random(20_000) < 1 / (1 + np.exp(-margin / 15)), margin, -margin)
    fitted = cross_fit(margin, np.arange(20_000) % 5)
    assert calibration_error(reliability(fitted, outcomes(margin))) < 0.015
    squashed = np.sign(margin) * np.abs(margin) ** 3  # no temperature makes chances of these
    assert calibration_error(reliability(cross_fit(squashed, np.arange(20_000) % 5), outcomes(margin))) > 0.03


def test_ties_are_as_sure_as_they_are_right() -> None:
    found = measured(from_margins(np.zeros(12)))
    assert calibration_error(found.reliability) == 0.0
    assert math.isnan(calibration_error([]))


def by_all_orders(margin: np.ndarray, credit: np.ndarray) -> np.ndarray:
    """The mean risk curve over every order that puts no smaller |margin| first."""
    curves = []
    for order in itertools.permutations(range(len(margin))):
        taken = np.abs(margin)[list(order)]
        if np.all(taken[:-1] >= taken[1:]):
            curves.append(np.cumsum(1 - credit[list(order)]) / np.arange(1, len(margin) + 1))
    return np.mean(curves, axis=0)


@pytest.mark.parametrize("seed", range(4))
def test_risks_are_means_over_all_orders_of_equal_margins(seed: int) -> None:
    margin = np.random.default_rng(seed).integers(-2, 4, 7).astype(np.float64)
    found = outcomes(margin)
    assert risks(found) == pytest.approx(by_all_orders(margin, found.credit_P))


def test_area_under_risk() -> None:
    margin = noisy(500)
    risk = risks(outcomes(margin))
    assert risk[-1] == pytest.approx(1 - outcomes(margin).credit_P.mean())
    steps = np.arange(1, 501) / 500
    assert area_under_risk(risk) == pytest.approx(auc(steps, risk), abs=2e-3)  # a sum against a trapezoid
    best = area_under_risk(risks(outcomes(np.array([9.0, 8.0, -1.0, -2.0]))))
    assert best < area_under_risk(risks(outcomes(np.array([1.0, 2.0, -8.0, -9.0]))))


@pytest.mark.parametrize("n", [1, 7, 100, 101, 8552])
def test_the_curve_has_its_ends_and_at_most_101_points(n: int) -> None:
    risk = risks(outcomes(noisy(n)))
    points = risk_coverage(risk)
    assert len(points) == min(n, 100)
    assert points[-1].coverage == 1.0 and points[-1].risk == pytest.approx(risk[-1])
    assert all(a.coverage < b.coverage for a, b in itertools.pairwise(points))
