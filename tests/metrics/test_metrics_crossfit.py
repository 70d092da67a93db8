from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.metrics import brier_score_loss, log_loss

from btrm.metrics.calibration import fit_temperatures
from btrm.metrics.crossfit import cross_fit, folds_of, sigma


def drawn(n: int, temperature: float, seed: int = 0) -> np.ndarray:
    """Margins of a judge that is calibrated at this temperature, preferred less other."""
    rng = np.random.default_rng(seed)
    margin = np.rint(rng.normal(0, 25, n))
    return np.where(rng.random(n) < 1 / (1 + np.exp(-margin / temperature)), margin, -margin)


def test_temperatures_are_those_that_a_general_minimiser_finds() -> None:
    margin = drawn(500, 15.0)
    weights = np.random.default_rng(1).integers(0, 3, (4, 500)).astype(np.float64)
    doubts = np.array([0.0, 0.01, 0.05, 0.2])
    for temperature, weight, doubt in zip(fit_temperatures(margin, weights, doubts), weights, doubts, strict=True):

        def loss(log_t: float, weight: np.ndarray = weight, doubt: float = doubt) -> float:
            logit = margin / math.exp(log_t)
            terms = (1 - doubt) * np.logaddexp(0, -logit) + doubt * np.logaddexp(0, logit)
            return float(weight @ terms)

        found = minimize_scalar(loss, bounds=(0, 10), method="bounded", options={"xatol": 1e-9})
        assert temperature == pytest.approx(math.exp(found.x), rel=1e-4)


def test_each_fold_is_fitted_to_the_others() -> None:
    margin, fold = drawn(300, 15.0), np.arange(300) % 3
    fitted = cross_fit(margin, fold)
    for number in range(3):
        others = margin[fold != number]
        alone = fit_temperatures(others, np.ones((1, 200)), np.array([1 / 202]))[0]
        assert fitted.temperature_P[fold == number] == pytest.approx(np.full(100, alone))
    changed = margin.copy()
    changed[fold == 1] *= -3
    assert cross_fit(changed, fold).temperature_P[1] == pytest.approx(fitted.temperature_P[1])


def test_loss_and_brier_are_those_of_scikit_learn() -> None:
    margin = drawn(800, 12.0)
    fitted = cross_fit(margin, np.arange(800) % 5)
    side0 = np.random.default_rng(2).random(800) < 0.5  # which side is preferred is a label again
    chance = sigma(np.where(side0, 1, -1) * fitted.logit_P)
    assert fitted.loss_P.mean() == pytest.approx(log_loss(side0, chance))
    assert fitted.brier_P.mean() == pytest.approx(brier_score_loss(side0, chance))


def test_a_calibrated_judge_shows_its_temperature_and_entropy() -> None:
    margin = drawn(40_000, 12.0)
    fitted = cross_fit(margin, np.arange(40_000) % 10)
    chance = sigma(np.abs(margin) / 12)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = np.nan_to_num(-(chance * np.log(chance) + (1 - chance) * np.log1p(-chance)))
    assert fitted.temperature == pytest.approx(12, rel=0.03)
    assert fitted.loss_P.mean() == pytest.approx(entropy.mean(), abs=0.01)
    assert fitted.brier_P.mean() == pytest.approx((chance * (1 - chance)).mean(), abs=0.01)


def test_the_scale_of_scores_changes_no_loss() -> None:
    margin, fold = drawn(400, 12.0), np.arange(400) % 4
    assert cross_fit(margin, fold).loss_P == pytest.approx(cross_fit(margin / 25, fold).loss_P)


def test_margins_that_tell_nothing_cost_what_a_coin_costs() -> None:
    for margin in (np.array([5.0, -5.0] * 10), np.array([-3.0] * 20), np.zeros(20)):
        fitted = cross_fit(margin, np.arange(20) // 2 % 5)
        assert math.isinf(fitted.temperature)
        assert fitted.loss_P == pytest.approx(np.full(20, math.log(2)))
        assert fitted.brier_P == pytest.approx(np.full(20, 0.25))
        assert fitted.confidence_P == pytest.approx(np.full(20, 0.5))


def test_one_error_of_a_judge_that_is_else_right_is_no_infinite_loss() -> None:
    margin = np.full(50, 30.0)
    assert cross_fit(margin, np.arange(50) % 5).loss_P.mean() == pytest.approx(-math.log(41 / 42))
    margin[7] = -30.0
    fitted = cross_fit(margin, np.arange(50) % 5)
    assert 3 < fitted.loss_P[7] < 5
    assert 0 < fitted.temperature < math.inf


def test_pairs_that_do_not_count_change_nothing() -> None:
    margin = drawn(100, 12.0)
    fold = np.arange(100) % 4
    with_holes = cross_fit(np.append(margin, [np.nan] * 4), np.append(fold, [0, 1, 2, 3]))
    assert with_holes.loss_P[:100] == pytest.approx(cross_fit(margin, fold).loss_P)
    assert np.isnan(with_holes.loss_P[100:]).all()


def test_one_context_alone_has_nothing_to_fit_on() -> None:
    fitted = cross_fit(drawn(10, 12.0), folds_of(np.zeros(10, dtype=np.int64), ["a"] * 10, 5))
    assert np.isnan(fitted.loss_P).all()
    assert fitted.temperature > 0


def test_folds_hold_whole_clusters_whatever_the_order() -> None:
    rng = np.random.default_rng(0)
    cluster = rng.integers(0, 40, 200) * 7
    ids = [f"{name:06x}" for name in rng.permutation(200)]
    fold = folds_of(cluster, ids, 6)
    assert all(len(set(fold[cluster == number])) == 1 for number in set(cluster))
    sizes = [len(set(cluster[fold == number])) for number in range(6)]
    assert max(sizes) - min(sizes) <= 1
    order = rng.permutation(200)
    renumbered = 1000 - cluster
    assert np.array_equal(folds_of(renumbered[order], [ids[i] for i in order], 6), fold[order])
