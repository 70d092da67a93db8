"""What it would take: power and sample sizes against statsmodels, and by doing what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.power import NormalIndPower, TTestPower

from btrm.metrics.decisions import compare
from btrm.metrics.power import Variance, detectable, more_pairs, more_seeds, reach, seed_variance


def test_the_detectable_difference_is_that_of_statsmodels() -> None:
    effect = NormalIndPower(ddof=0).solve_power(nobs1=400, alpha=0.05, power=0.8, ratio=0)
    assert detectable(0.49 / 400, 10**6) == pytest.approx(effect * 0.7, rel=1e-3)


@pytest.mark.parametrize("clusters", [6, 10, 40])
def test_with_few_clusters_too(clusters: int) -> None:
    effect = TTestPower().solve_power(nobs=clusters, alpha=0.05, power=0.8)
    assert detectable(0.49 / clusters, clusters) == pytest.approx(effect * 0.7, rel=0.02)


def test_pairs_needed_is_that_of_statsmodels() -> None:
    needed = NormalIndPower(ddof=0).solve_power(effect_size=0.03 / 0.7, alpha=0.05, power=0.8, ratio=0)
    assert more_pairs(0.03, 0.49 / 400, 400) == pytest.approx(needed - 400, abs=3)
    assert more_pairs(0.3, 0.49 / 400, 400) == 0
    assert more_pairs(0, 0.49 / 400, 400) == math.inf and math.isnan(more_pairs(0.1, math.nan, 1))


def test_with_so_many_more_pairs_four_of_five_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    lead, n = 0.08, 100
    extra = more_pairs(lead, (0.68 * 0.32 + 0.6 * 0.4) / n, n)
    found = 0
    for _ in range(300):
        a_P1, b_P1 = ((rng.random((n + int(extra), 1)) < rate).astype(float) for rate in (0.68, 0.6))
        difference_P = (a_P1 - b_P1).ravel()
        found += abs(difference_P.mean()) > 1.96 * difference_P.std() / math.sqrt(len(difference_P))
    assert 0.72 <= found / 300 <= 0.88


def test_a_judges_sampling_is_told_from_what_pairs_differ_in() -> None:
    rng = np.random.default_rng(1)
    rate_P = rng.beta(4, 2, 20_000)
    credit_PS = (rng.random((20_000, 4)) < rate_P[:, None]).astype(float)
    one_seed, seeds = seed_variance(credit_PS)
    assert seeds == 4
    assert one_seed * 20_000 == pytest.approx(np.mean(rate_P * (1 - rate_P)), rel=0.03)
    assert math.isnan(seed_variance(credit_PS[:, :1])[0])


def test_answers_that_serve_all_pairs_of_a_context_are_one_draw() -> None:
    """The truth: the variance of the mean over many seeds, where six pairs of a context share each answer."""
    rng = np.random.default_rng(2)
    credit_CS = (rng.random((300, 400)) < rng.beta(4, 2, 300)[:, None]).astype(float)
    cluster_P = np.repeat(np.arange(300), 6)
    credit_PS = credit_CS[cluster_P]
    known = credit_PS.mean(0).var(ddof=1)
    assert seed_variance(credit_PS[:, :50], cluster_P)[0] == pytest.approx(known, rel=0.15)
    assert seed_variance(credit_PS[:, :50])[0] == pytest.approx(known / 6, rel=0.15)
    alone = np.arange(len(credit_PS))
    assert seed_variance(credit_PS[:, :3], alone)[0] == pytest.approx(seed_variance(credit_PS[:, :3])[0])


def test_seeds_needed_are_enough_and_one_less_is_not() -> None:
    variance = Variance(total=4e-4, one_seed=6e-4, sampling=3e-4)
    difference = reach() * math.sqrt(2.2e-4)
    more = more_seeds(difference, variance, 2)
    assert variance.between + variance.one_seed / (2 + more) <= 2.2e-4 + 1e-12
    assert variance.between + variance.one_seed / (2 + more - 1) > 2.2e-4


def test_no_number_of_seeds_helps_where_pairs_alone_leave_too_much_open() -> None:
    variance = Variance(total=4e-4, one_seed=1e-4, sampling=5e-5)
    assert more_seeds(reach() * math.sqrt(3e-4), variance, 2) == math.inf
    assert math.isnan(more_seeds(0.1, Variance(4e-4, math.nan, math.nan), 1))


def test_a_comparison_with_noisy_judges_asks_for_seeds() -> None:
    rng = np.random.default_rng(3)
    a_PS, b_PS = ((rng.random((400, 2)) < rate).astype(float) for rate in (0.60, 0.58))  # all noise is the judges' own
    found = compare(a_PS, b_PS)
    assert found.low < 0 < found.high and 0 < found.seeds_needed < math.inf and found.pairs_needed > 0
    assert math.isnan(compare(a_PS[:, :1], b_PS[:, :1]).seeds_needed)
