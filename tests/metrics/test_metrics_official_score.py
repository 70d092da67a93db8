"""Intervals of official scores: closed forms, and coverage for judges of known accuracy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from btrm.metrics.official_score import Estimate, interval, mean_of, mean_of_parts, named, weighted_sum, with_mean
from btrm.metrics.pairwise import Floats, Ints


def _of(credits: list[float], length: int | None = None) -> Estimate:
    credit = np.array(credits + [0.0] * ((length or len(credits)) - len(credits)))
    found = mean_of(credit, np.arange(len(credit)) < len(credits))
    assert found is not None
    return found


def test_the_interval_of_a_share_is_wilsons() -> None:
    estimate = _of([1.0] * 80 + [0.0] * 20)
    found = interval(estimate, np.arange(100))
    z2 = 1.9842169515**2  # Student's at 99 degrees
    n = 99.0 * 99 / 100  # p (1 - p) over the variance, in which n is n - 1 twice: for the mean and for the clusters
    centre, half = (0.8 + z2 / (2 * n)), math.sqrt(z2 * (0.16 + z2 / (4 * n)) / n)
    assert (found.low, found.high) == pytest.approx(
        ((centre - half) / (1 + z2 / n), (centre + half) / (1 + z2 / n)), abs=1e-4
    )


def test_prompts_of_one_context_count_once() -> None:
    credits = [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0] * 10
    twice = interval(_of(credits), np.arange(80) // 2)
    once = interval(_of(credits[::2]), np.arange(40))
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high), abs=2e-3)
    alone = interval(_of(credits), np.arange(80))
    assert alone.high - alone.low < 0.75 * (twice.high - twice.low)


def test_where_all_is_right_the_number_of_prompts_bounds_it() -> None:
    few, many = (interval(_of([1.0] * n), np.arange(n)) for n in (10, 1000))
    assert few.low < 0.75 and 0.99 < many.low < 1 and few.high == many.high == 1
    assert math.isnan(interval(_of([1.0]), np.arange(1)).low)


def test_a_score_above_1_lies_in_its_interval() -> None:
    (score,) = named("Ties", weighted_sum([(1.01, _of([1.0] * 20))]), np.arange(20))
    assert score.value == pytest.approx(1.01) and score.low < 1 and score.high == score.value


def test_parts_that_are_not_there() -> None:
    nothing = mean_of(np.ones(3), np.zeros(3, dtype=bool))
    assert (
        nothing is None
        and mean_of_parts([(1.0, None)]) is None
        and weighted_sum([(1.0, _of([1.0])), (1.0, None)]) is None
    )
    assert with_mean("B", {"x": None}, np.arange(3)) == []
    names = [score.name for score in with_mean("B", {"x": None, "y": _of([1.0, 0.0])}, np.arange(2))]
    assert names == ["B without x", "B y"]


RATES = (0.95, 0.7, 0.55, 0.8)  # of four subsets
SIZES = (100, 60, 300, 200)


def _simulated(rng: np.random.Generator) -> tuple[Floats, Ints, Ints]:
    """Return the credits of prompts in four subsets: those of one context share how hard it is."""
    subset = np.repeat(np.arange(4), SIZES)
    cluster = np.concatenate([1000 * s + np.arange(size) // 2 for s, size in enumerate(SIZES)])
    hardness = np.repeat(rng.random(len(subset)), 2)[: len(subset)]
    own = rng.random(len(subset))
    draw = np.where(rng.random(len(subset)) < 0.5, hardness[: len(subset)], own)
    return (draw < np.array(RATES)[subset]).astype(np.float64), subset, cluster


def _covered(n_simulations: int) -> float:
    rng = np.random.default_rng(7)
    truth = float(np.mean(RATES))
    hits = 0
    for _ in range(n_simulations):
        credit, subset, cluster = _simulated(rng)
        estimate = mean_of_parts([(1.0, mean_of(credit, subset == s)) for s in range(4)])
        assert estimate is not None
        found = interval(estimate, cluster)
        hits += found.low <= truth <= found.high
    return hits / n_simulations


def test_intervals_cover_the_truth() -> None:
    assert 0.92 <= _covered(1000) <= 0.98


@pytest.mark.soak
def test_intervals_cover_the_truth_in_many_simulations() -> None:
    assert 0.93 <= _covered(20_000) <= 0.97
