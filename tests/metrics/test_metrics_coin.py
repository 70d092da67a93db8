from __future__ import annotations

import math

import numpy as np
import pytest

from btrm.metrics.bootstrap import Interval
from btrm.metrics.coin import COINS, Gains, gains
from btrm.metrics.crossfit import cross_fit
from btrm.metrics.intervals import intervals
from tests.metrics.made_cells import from_margins, measured


def test_gains_are_those_of_the_fit_to_all_pairs() -> None:
    margin = np.array([10.0] * 7 + [-10.0] * 3)
    fitted = cross_fit(margin, np.arange(10) % 2)
    right = (7 + 3 / 12 - 7 / 12) / 10  # with a doubt of 1 in 12, the frequency that the fit meets
    expected = math.log(2) + 0.7 * math.log(right) + 0.3 * math.log(1 - right)
    found = gains(fitted, np.arange(10))
    assert found.gain["fitted_log_loss"] == pytest.approx(expected)
    assert found.gain["brier"] == pytest.approx(0.25 - 0.7 * (1 - right) ** 2 - 0.3 * right**2)


def test_a_large_gain_changes_its_interval_little_and_a_small_one_much() -> None:
    linear = Interval(0.48, 0.52)
    large = Gains({"brier": 0.2}, {"brier": 0.0}).interval("brier", 0.5, linear)
    assert (large.low, large.high) == pytest.approx((0.48, 0.52), abs=6e-4)
    small = Gains({"brier": 0.005}, {"brier": 0.02}).interval("brier", 0.5, linear)
    assert small.low == pytest.approx(0.48 - 0.02**2 / 0.02)
    assert small.high == pytest.approx(0.505)  # a coin, and no worse


def test_margins_that_tell_nothing_may_tell_a_little() -> None:
    margin = np.tile([4.0, -4.0], 50)
    found = gains(cross_fit(margin, np.arange(100) % 5), np.arange(100))
    interval = found.interval("fitted_log_loss", math.log(2), Interval(math.log(2), math.log(2)))
    reach = 1.984 / 99**0.5  # Student's quantile, and the error of a mean of ones and minus ones
    assert interval.high == math.log(2)
    assert interval.low == pytest.approx(math.log(2) - reach**2 / 2, abs=1e-4)
    assert found.most_of_nothing["brier"] == pytest.approx(reach**2 / 4, rel=1e-3)


def test_the_gain_of_small_means_is_what_is_assumed_where_there_is_none() -> None:
    rng = np.random.default_rng(0)
    margin = np.rint(rng.normal(0.5, 10, 200_000))
    found = gains(cross_fit(margin, np.arange(200_000) % 5), np.arange(200_000))
    share = float(margin.mean() ** 2 / np.mean(margin**2))
    assert found.gain["fitted_log_loss"] == pytest.approx(share / 2, rel=0.02)
    assert found.gain["brier"] == pytest.approx(share / 4, rel=0.02)


def test_margins_that_are_all_wrong_have_an_interval_and_ties_alone_have_none() -> None:
    wrong, ties = (
        gains(cross_fit(margin, np.arange(20) % 4), np.arange(20)) for margin in (np.full(20, -5.0), np.zeros(20))
    )
    for name, coin in COINS.items():
        assert wrong.interval(name, coin, Interval(coin, coin)) == Interval(coin, coin)
        assert math.isnan(ties.interval(name, coin, Interval(coin, coin)).low)


def test_next_to_no_gain_is_bounded_by_the_margins() -> None:
    value = math.log(2)
    found = Gains({"fitted_log_loss": 1e-20}, {"fitted_log_loss": 0.01})
    interval = found.interval("fitted_log_loss", value, Interval(value - 2e-4, value + 2e-4))
    assert (interval.low, interval.high) == pytest.approx((value - 0.04, value))


@pytest.mark.parametrize("margin", [[-30.0, 20.0, -60.0], [50.0, -5.0, 20.0, -40.0], [-9.0, 30.0]])
def test_no_loss_of_a_few_pairs_lies_below_nothing(margin: list[float]) -> None:
    (found,) = intervals([measured(from_margins(np.array(margin)))], 200, 0)
    assert all(found[name].low >= 0 for name in COINS)


@pytest.mark.parametrize(("clusters", "size"), [(10, 40), (400, 1)])
def test_intervals_of_judges_hardly_better_than_a_coin_are_losses_that_there_are(clusters: int, size: int) -> None:
    rng = np.random.default_rng(3)
    cluster_P = np.repeat(np.arange(clusters), size)
    for number in range(25):
        of_context = 0.5 * rng.standard_normal(clusters)[cluster_P] if size > 1 else 0.0
        margin_P = np.rint(15 * (0.03 + of_context + 0.8 * rng.standard_normal(len(cluster_P))))
        cell = measured(from_margins(margin_P), cluster_P=cluster_P)
        (found,) = intervals([cell], 100, number)
        for name in COINS:
            assert 0 <= found[name].low <= cell.value(name) + 1e-9 <= found[name].high + 2e-9 < 2
