from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student_t
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.proportion import proportion_confint

from btrm.metrics.bootstrap import (
    edge_interval,
    expanded_tail,
    percentile_interval,
    resampled_sums,
    student_quantile,
    student_tail,
    told_tail,
)


def coverage(n_worlds: int, n_pairs: int, truth: float) -> float:
    """Share of worlds whose 95 % interval holds the true accuracy."""
    rng = np.random.default_rng(1)
    hits = 0
    for world in range(n_worlds):
        credit_P1 = (rng.random((n_pairs, 1)) < truth).astype(np.float64)
        interval = percentile_interval(resampled_sums(credit_P1, 400, world)[:, 0] / n_pairs)
        hits += interval.low <= truth <= interval.high
    return hits / n_worlds


def test_interval_covers_the_truth() -> None:
    assert 0.90 <= coverage(200, 200, 0.7) <= 0.99


@pytest.mark.soak
@pytest.mark.parametrize("truth", [0.5, 0.7, 0.95])
def test_interval_covers_the_truth_over_many_worlds(truth: float) -> None:
    assert 0.935 <= coverage(4000, 500, truth) <= 0.965


def test_width_is_that_of_the_normal_approximation() -> None:
    credit_P1 = np.repeat([1.0, 0.0], [1400, 600])[:, None]
    interval = percentile_interval(resampled_sums(credit_P1, 4000, 0)[:, 0] / 2000)
    expected = 2 * 1.96 * (0.7 * 0.3 / 2000) ** 0.5
    assert interval.high - interval.low == pytest.approx(expected, rel=0.08)


def test_columns_see_the_same_resamples() -> None:
    credit_P = np.random.default_rng(0).integers(0, 2, 300).astype(np.float64)
    sums_BM = resampled_sums(np.stack([credit_P, credit_P, 1 - credit_P], 1), 500, 0)
    assert np.array_equal(sums_BM[:, 0], sums_BM[:, 1])
    assert np.allclose(sums_BM[:, 0] + sums_BM[:, 2], 300)


def test_chunks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    value_PM = np.random.default_rng(0).random((50, 2))
    whole = resampled_sums(value_PM, 40, 3)
    monkeypatch.setattr("btrm.metrics.bootstrap._CHUNK", 50 * 7)
    assert np.allclose(resampled_sums(value_PM, 40, 3), whole)


def test_clusters_are_drawn_whole() -> None:
    value_PM = np.ones((6, 1))
    sums_BM = resampled_sums(value_PM, 200, 0, np.array([0, 0, 0, 1, 1, 1]))
    assert set(sums_BM[:, 0]) == {6.0}
    uneven = resampled_sums(value_PM, 200, 0, np.array([0, 0, 0, 0, 0, 1]))
    assert set(uneven[:, 0]) == {2.0, 6.0, 10.0}


def test_nothing_defined_gives_no_interval() -> None:
    interval = percentile_interval(np.array([np.nan, np.nan]))
    assert np.isnan([interval.low, interval.high]).all()


@pytest.mark.parametrize(("degrees", "within"), [(2, 1e-2), (5, 1e-3), (10, 1e-4), (100, 1e-7), (8000, 1e-9)])
def test_students_quantile_is_that_of_scipy(degrees: int, within: float) -> None:
    assert student_quantile(0.975, degrees) == pytest.approx(student_t.ppf(0.975, degrees), rel=within)


@pytest.mark.parametrize("degrees", [1, 4, 9, 50, 5000])
def test_students_tail_is_that_of_scipy(degrees: int) -> None:
    for t in (0.0, 0.1, 2.0, 8.0):
        assert student_tail(t, degrees) == pytest.approx(student_t.sf(t, degrees), rel=1e-8)


@pytest.mark.parametrize("n_drawn", [5, 10, 400])
def test_the_tail_that_an_interval_leaves_out_is_told_again(n_drawn: int) -> None:
    assert told_tail(expanded_tail(0.025, n_drawn), n_drawn) == pytest.approx(0.025, rel=1e-2)
    assert told_tail(0.5, n_drawn) == pytest.approx(0.5)
    assert np.isnan(told_tail(0.1, 1))


def test_few_draws_widen_an_interval_and_many_do_not() -> None:
    value_B = np.random.default_rng(0).normal(0, 1, 20_000)
    plain = percentile_interval(value_B)
    few, many = percentile_interval(value_B, n_drawn=10), percentile_interval(value_B, n_drawn=5000)
    assert few.high / plain.high == pytest.approx((10 / 9) ** 0.5 * student_t.ppf(0.975, 9) / 1.96, rel=0.05)
    assert many.high == pytest.approx(plain.high, rel=1e-3)
    assert expanded_tail(0.025, 1) == 0.0


@pytest.mark.parametrize("n", [1, 20, 500])
def test_a_rate_without_spread_has_the_exact_interval(n: int) -> None:
    for value, count in ((1.0, n), (0.0, 0)):
        interval = edge_interval(value, n)
        assert (interval.low, interval.high) == pytest.approx(proportion_confint(count, n, method="beta"))


def test_spread_is_that_of_cluster_robust_least_squares() -> None:
    rng = np.random.default_rng(0)
    cluster_P = np.repeat(np.arange(400), rng.integers(1, 6, 400))
    value_P = rng.normal(0, 1, 400)[cluster_P] + rng.normal(0, 1, len(cluster_P))
    sums_BM = resampled_sums(np.stack([value_P, np.ones(len(value_P))], 1), 4000, 0, cluster_P)
    robust = OLS(value_P, np.ones(len(value_P))).fit(cov_type="cluster", cov_kwds={"groups": cluster_P})
    assert (sums_BM[:, 0] / sums_BM[:, 1]).std() == pytest.approx(robust.bse[0], rel=0.05)
