"""Paired comparisons: coverage on simulated judges, agreement with scipy, and what their figures mean."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import bootstrap, norm

from btrm.metrics.decisions import adjusted, compare, compare_all

Floats = NDArray[np.float64]


def chance(value_N: Floats) -> Floats:
    return 1 / (1 + np.exp(-value_N))


def world(rng: np.random.Generator, n_clusters: int, size: int, seeds: int) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Return (a_PS, b_PS, cluster_P): contexts differ in how hard they are, for both judges and for b alone."""
    cluster_P = np.repeat(np.arange(n_clusters), size)
    hard, odd = rng.normal(0, 1, n_clusters)[cluster_P], rng.normal(0, 0.7, n_clusters)[cluster_P]
    a_P = chance(0.6 + hard + rng.normal(0, 0.5, len(cluster_P)))
    b_P = chance(0.3 + hard + odd + rng.normal(0, 0.5, len(cluster_P)))
    a_PS, b_PS = (
        (rng.random((len(cluster_P), seeds)) < chance_P[:, None]).astype(np.float64) for chance_P in (a_P, b_P)
    )
    return a_PS, b_PS, cluster_P


def coverage(worlds: int, n_clusters: int, size: int, seeds: int, draws: int) -> float:
    a_PS, b_PS, _ = world(np.random.default_rng(99), 400_000, 1, 1)
    truth = float((a_PS - b_PS).mean())
    rng, hits = np.random.default_rng(3), 0
    for number in range(worlds):
        found = compare(*world(rng, n_clusters, size, seeds), n_bootstrap=draws, seed=number)
        hits += found.low <= truth <= found.high
    return hits / worlds


def test_the_interval_covers_the_truth() -> None:
    assert 0.90 <= coverage(150, 150, 2, 2, 500) <= 0.99


@pytest.mark.soak
@pytest.mark.parametrize(("n_clusters", "size", "seeds"), [(400, 1, 1), (200, 3, 1), (200, 3, 4), (60, 5, 2)])
def test_the_interval_covers_the_truth_over_many_worlds(n_clusters: int, size: int, seeds: int) -> None:
    assert 0.93 <= coverage(1000, n_clusters, size, seeds, 1000) <= 0.97


def test_without_clusters_the_same_pairs_would_look_too_sure() -> None:
    rng, cluster_P = np.random.default_rng(0), np.repeat(np.arange(60), 12)
    a_PS, b_PS = ((rng.random((60, 1)) < 0.6)[cluster_P].astype(float) for _ in range(2))
    clustered, plain = compare(a_PS, b_PS, cluster_P), compare(a_PS, b_PS)
    assert clustered.difference == plain.difference
    assert clustered.high - clustered.low > 2.5 * (plain.high - plain.low)


def test_the_interval_is_that_of_scipys_bootstrap() -> None:
    a_PS, b_PS, _ = world(np.random.default_rng(5), 500, 1, 3)
    found = compare(a_PS, b_PS)
    theirs = bootstrap(((a_PS - b_PS).mean(axis=1),), np.mean, n_resamples=9999, method="percentile", rng=0)
    low, high = theirs.confidence_interval
    assert found.low == pytest.approx(low, abs=0.004) and found.high == pytest.approx(high, abs=0.004)
    assert found.difference == pytest.approx((a_PS - b_PS).mean())


def test_swapping_the_judges_mirrors_everything() -> None:
    a_PS, b_PS, cluster_P = world(np.random.default_rng(1), 80, 3, 2)
    ab, ba = compare_all([a_PS, b_PS], [(0, 1), (1, 0)], cluster_P)
    assert ba.difference == -ab.difference and (ba.wins, ba.losses) == (ab.losses, ab.wins)
    assert ba.low == pytest.approx(-ab.high) and ba.p_bootstrap == pytest.approx(ab.p_bootstrap)
    assert (ba.mde, ba.pairs_needed, ba.p_mcnemar) == (ab.mde, ab.pairs_needed, ab.p_mcnemar)


def test_order_of_pairs_and_names_of_clusters_do_not_matter() -> None:
    a_PS, b_PS, cluster_P = world(np.random.default_rng(1), 80, 3, 2)
    order = np.random.default_rng(2).permutation(len(cluster_P))
    one, other = compare(a_PS, b_PS, cluster_P), compare(a_PS[order], b_PS[order], 7 * cluster_P[order] + 3)
    assert one == other


def test_a_pair_without_a_credit_counts_for_neither() -> None:
    a_PS, b_PS, _ = world(np.random.default_rng(2), 300, 1, 2)
    a_PS[:100], b_PS[100:150, 0] = np.nan, np.nan
    found = compare(a_PS, b_PS)
    assert found.n_pairs == found.n_clusters == 200
    assert found.difference == pytest.approx(np.mean(a_PS[100:].mean(1) - np.nanmean(b_PS[100:], axis=1)))
    nothing = compare(a_PS[:100], b_PS[:100])
    assert nothing.n_pairs == 0 and math.isnan(nothing.difference) and math.isnan(nothing.p_mcnemar)


def test_mcnemar_counts_pairs_or_clusters_as_it_says() -> None:
    a_P1, b_P1 = np.array([[1.0], [1], [0], [1], [0.5]]), np.array([[0.0], [1], [1], [0], [0]])
    assert (compare(a_P1, b_P1).wins, compare(a_P1, b_P1).losses) == (3, 1)
    clustered = compare(a_P1, b_P1, np.array([0, 0, 0, 1, 1]))  # 1 + 0 - 1 in the first, 1 + 1/2 in the second
    assert (clustered.wins, clustered.losses, clustered.n_clusters) == (1, 0, 2)


def test_judges_that_never_differ_leave_open_what_so_many_pairs_do() -> None:
    same_PS = np.ones((100, 2))
    found = compare(same_PS, same_PS)
    assert found.difference == 0 and found.p_bootstrap == found.p_mcnemar == 1
    assert found.high == -found.low == pytest.approx(1 - 0.025**0.01)
    assert found.pairs_needed == math.inf and math.isnan(found.mde)


def test_few_clusters_are_never_surer_than_their_signs() -> None:
    a_PS, b_PS = np.ones((40, 1)), np.zeros((40, 1))
    b_PS[::9] = 1
    few = compare(a_PS, b_PS, np.arange(40) // 10)
    assert few.n_clusters == 4 and few.p_bootstrap >= 2.0**-3
    assert math.isnan(compare(a_PS, b_PS, np.zeros(40, dtype=np.int64)).p_bootstrap)


@pytest.mark.parametrize("n_clusters", [2, 3, 4, 10])
def test_with_few_clusters_the_interval_covers_the_truth_too(n_clusters: int) -> None:
    assert coverage(100, n_clusters, 20, 1, 200) >= 0.88


def test_what_few_clusters_cannot_find_needs_more_of_them() -> None:
    a_PS, b_PS = np.ones((40, 2)), np.zeros((40, 2))
    b_PS[::9, 0] = 1
    few = compare(a_PS, b_PS, np.arange(40) // 10)
    assert few.low > 0 and few.p_bootstrap >= 0.05
    # six contexts of ten pairs are the fewest of which a p can lie below 0.05
    assert math.isnan(few.mde) and few.pairs_needed == 20 and few.seeds_needed == math.inf


def test_one_cluster_tells_nothing_of_seeds() -> None:
    a_PS, b_PS = (np.random.default_rng(n).integers(0, 2, (20, 3)).astype(float) for n in (0, 1))
    one = compare(a_PS, b_PS, np.zeros(20, dtype=np.int64))
    assert all(math.isnan(x) for x in (one.low, one.p_bootstrap, one.mde, one.pairs_needed, one.seeds_needed))


def test_alike_but_for_rounding_is_alike() -> None:
    cluster_P = np.repeat(np.arange(41), np.arange(41) % 3 + 1)
    a_PS = np.tile([1.0, 0.0, 0.0], (len(cluster_P), 1))  # a third: a mean that no float holds
    found = compare(a_PS, np.zeros((len(cluster_P), 1)), cluster_P)
    assert found.low == pytest.approx(1 / 3 - (1 - 0.025 ** (1 / 41))) and math.isnan(found.mde)


def test_with_few_clusters_equal_judges_are_told_apart_no_oftener_than_it_says() -> None:
    rng = np.random.default_rng(5)
    cluster_P = np.repeat(np.arange(10), 6)
    found = 0
    for number in range(60):
        lead_P1 = (rng.standard_normal(10)[cluster_P] + rng.standard_normal(60))[:, None]
        compared = compare(0.5 + 0.5 * np.sign(lead_P1), np.full((60, 1), 0.5), cluster_P, 500, number)
        assert (compared.p_bootstrap < 0.049) <= (not compared.low <= 0 <= compared.high)
        found += compared.p_bootstrap < 0.05
    assert found <= 6


def test_the_p_value_is_the_normal_ones_near_and_far() -> None:
    rng = np.random.default_rng(0)
    for lead in (0.02, 0.05, 0.25):
        a_PS, b_PS = (rng.random((3000, 1)) < 0.6 + lead).astype(float), (rng.random((3000, 1)) < 0.6).astype(float)
        found = compare(a_PS, b_PS)
        error = np.std(a_PS - b_PS) / math.sqrt(3000)
        expected = 2 * norm.sf(abs(found.difference) / error)
        assert math.log(found.p_bootstrap) == pytest.approx(math.log(expected), rel=0.15, abs=0.12)


def test_holm_is_over_all_that_are_given() -> None:
    a_PS, b_PS, _ = world(np.random.default_rng(1), 80, 3, 2)
    found = compare(a_PS, b_PS)
    three = adjusted([replace(found, p_bootstrap=p) for p in (0.01, 0.03, math.nan)])
    assert [c.p_holm for c in three[:2]] == pytest.approx([0.02, 0.03]) and math.isnan(three[2].p_holm)
    looked_at = adjusted([replace(found, p_bootstrap=p) for p in (0.01, 0.03)], unseen=3)
    assert [c.p_holm for c in looked_at] == pytest.approx([0.05, 0.12])
