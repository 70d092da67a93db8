"""Intervals of simulated judges hold the truth as often as they say, with pairs drawn alone and in unequal contexts.

A judge is right with a chance that its margin tells, so that the truth is a mean over very many pairs.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest

from btrm.metrics.decisions import compare
from btrm.metrics.intervals import WITH_INTERVAL, intervals
from tests.metrics.made_cells import from_margins, measured

NAMES = ("accuracy", "strict_accuracy", "tie_rate", "bt_log_loss", "fitted_log_loss", "brier")
DESIGNS = ("pairs", "contexts", "weak")  # weak: contexts, and a judge that is hardly better than a coin


def world(design: str, clusters: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Margins (a tenth of them ties) and contexts: of one pair, or of one to seven that share half the variance."""
    sizes = np.ones(clusters, dtype=np.int64) if design == "pairs" else rng.integers(1, 8, clusters)
    cluster = np.repeat(np.arange(clusters), sizes)
    shared = 0.0 if design == "pairs" else 0.5
    of_context, own = rng.standard_normal(clusters)[cluster], rng.standard_normal(len(cluster))
    mean = 0.15 if design == "weak" else 0.5
    margin = np.rint(15 * (mean + shared**0.5 * of_context + (1 - shared) ** 0.5 * own))
    return np.where(rng.random(len(margin)) < 0.1, 0.0, margin), cluster


@functools.cache
def truth(design: str) -> dict[str, float]:
    """The metrics over so many contexts that their own error does not count."""
    margin, cluster = world(design, 60_000, np.random.default_rng(99))
    found = measured(from_margins(margin), cluster_P=cluster)
    return {name: found.value(name) for name in NAMES}


def share_that_hold(design: str, worlds: int, clusters: int) -> dict[str, float]:
    """How often each metric's interval holds the truth."""
    rng = np.random.default_rng(7)
    holds = dict.fromkeys(NAMES, 0)
    known = truth(design)
    for number in range(worlds):
        margin, cluster = world(design, clusters, rng)
        (found,) = intervals([measured(from_margins(margin), cluster_P=cluster)], 600, number)
        for name in NAMES:
            holds[name] += found[name].low <= known[name] <= found[name].high
    return {name: count / worlds for name, count in holds.items()}


def share_of_differences(design: str, worlds: int, clusters: int) -> float:
    """How often the interval of a paired difference holds it: two judges that share most of their noise."""
    rng = np.random.default_rng(9)
    both: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for _ in range(worlds + 200):
        margin, cluster = world(design, clusters, rng)
        other = margin + np.rint(rng.normal(2, 8, len(margin)))
        both.append((_credit(other), _credit(margin), cluster))
    known = float(np.concatenate([a - b for a, b, _ in both]).mean())
    found = [compare(a, b, cluster, 600, number) for number, (a, b, cluster) in enumerate(both[:worlds])]
    return float(np.mean([one.low <= known <= one.high for one in found]))


def _credit(margin: np.ndarray) -> np.ndarray:
    return (0.5 + 0.5 * np.sign(margin))[:, None]


def test_all_metrics_with_an_interval_are_looked_at() -> None:
    rates = {"coverage", "unparsed_rate", "truncated_rate"}  # as tie_rate
    assert set(WITH_INTERVAL) - set(NAMES) == {"nontie_accuracy", *rates}


@pytest.mark.parametrize("design", DESIGNS)
def test_intervals_hold_the_truth(design: str) -> None:
    shares = share_that_hold(design, 150, 150)
    assert all(0.89 <= share <= 0.99 for share in shares.values()), shares


@pytest.mark.parametrize("clusters", [10, 20])
@pytest.mark.parametrize("design", ["contexts", "weak"])
def test_intervals_over_few_contexts_hold_the_truth(design: str, clusters: int) -> None:
    shares = share_that_hold(design, 150, clusters)
    assert all(share >= 0.88 for share in shares.values()), shares


def test_one_context_has_no_interval_and_pairs_without_scores_a_wide_one() -> None:
    margin = world("pairs", 60, np.random.default_rng(0))[0]
    (one,) = intervals([measured(from_margins(margin), cluster_P=np.zeros(60, dtype=np.int64))], 200, 0)
    assert all(np.isnan([found.low, found.high]).all() for found in one.values())
    (none,) = intervals([measured(np.full((10, 2, 1), np.nan))], 200, 0)
    bound = 1 - 0.025**0.1
    assert (none["accuracy"].low, none["accuracy"].high) == pytest.approx((0.5 - bound, 0.5 + bound))
    assert np.isnan(none["bt_log_loss"].low) and np.isnan(none["brier"].low)


@pytest.mark.soak
@pytest.mark.parametrize("clusters", [100, 400])
@pytest.mark.parametrize("design", DESIGNS)
def test_intervals_hold_the_truth_in_a_thousand_worlds(design: str, clusters: int) -> None:
    shares = share_that_hold(design, 1000, clusters)
    assert all(0.93 <= share <= 0.97 for share in shares.values()), shares


@pytest.mark.parametrize("design", DESIGNS)
def test_intervals_of_differences_hold_them(design: str) -> None:
    assert 0.89 <= share_of_differences(design, 150, 150) <= 0.99


@pytest.mark.soak
@pytest.mark.parametrize("design", DESIGNS)
def test_intervals_of_differences_hold_them_in_a_thousand_worlds(design: str) -> None:
    assert 0.93 <= share_of_differences(design, 1000, 300) <= 0.97
