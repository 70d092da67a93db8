"""Judges resampled together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from btrm.metrics.bootstrap import edge_interval, percentile_interval, resampled_sums
from btrm.metrics.pair_facts import read_pair_table
from btrm.metrics.panel import PairMean, Panel, mean_over_seeds
from btrm.records import PreferencePair, write_pairs

CLUSTER_P = np.repeat(np.arange(50), 4)


@pytest.fixture
def credits() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(rng.random((200, 3)) < rate).astype(np.float64) for rate in (0.6, 0.7, 0.8)]


def test_differences_come_from_the_same_resamples_whichever_pairs_are_judged(credits: list[np.ndarray]) -> None:
    whole = Panel(credits, [(0, 1)], CLUSTER_P, 300, 0)
    means = [credit.mean(axis=1) for credit in credits]
    sums_BM = resampled_sums(np.stack([means[0] - means[1], np.ones(200)], 1), 300, 0, CLUSTER_P)
    assert np.allclose(whole.resampled(0, 1), sums_BM[:, 0] / sums_BM[:, 1])
    credits[1][:7] = np.nan  # now their pairs differ
    partly = Panel(credits, [(0, 1)], CLUSTER_P, 300, 0)
    told_P = np.arange(200) >= 7
    difference_P = np.where(told_P, means[0] - means[1], 0.0)
    sums_BM = resampled_sums(np.stack([difference_P, told_P.astype(float)], 1), 300, 0, CLUSTER_P)
    assert np.allclose(partly.resampled(0, 1), sums_BM[:, 0] / sums_BM[:, 1])


def test_an_accuracys_interval_is_the_clustered_bootstraps(credits: list[np.ndarray]) -> None:
    panel = Panel(credits, [], CLUSTER_P, 300, 0)
    sums_BM = resampled_sums(credits[2].mean(axis=1)[:, None], 300, 0, CLUSTER_P)
    assert panel.accuracy_interval(2) == percentile_interval(sums_BM[:, 0] / 200, n_drawn=50)
    perfect = Panel([np.ones((200, 1))], [], CLUSTER_P, 300, 0)
    assert perfect.accuracy_interval(0) == edge_interval(1.0, 50)
    assert np.isnan(Panel([np.full((3, 1), np.nan)], [], None, 100, 0).accuracy_interval(0).low)


def test_the_variance_is_that_of_cluster_means_where_clusters_are_alike() -> None:
    value_P = np.random.default_rng(1).random(200)
    mean = PairMean.of(value_P, CLUSTER_P)
    assert mean.variance() == pytest.approx(value_P.reshape(50, 4).mean(axis=1).var(ddof=1) / 50)
    assert (mean.n_pairs, mean.n_clusters, mean.value) == (200, 50, pytest.approx(value_P.mean()))


def test_seeds_that_lack_a_pair_are_left_out_of_its_mean() -> None:
    credit_PS = np.array([[1.0, 0.0, np.nan], [np.nan, np.nan, np.nan], [0.5, 0.5, 0.5]])
    assert np.array_equal(mean_over_seeds(credit_PS), [0.5, np.nan, 0.5], equal_nan=True)


def test_pairs_without_a_context_are_clusters_of_their_own(tmp_path: Path) -> None:
    contexts = ["", "asked", "  ", "asked"]
    pairs = [
        PreferencePair.make(text, (f"a{i}", f"b{i}"), 0, source="x", split="test") for i, text in enumerate(contexts)
    ]
    again = replace(pairs[0], label_id=f"{pairs[0].pair_id}-1")  # another person's label of the first
    write_pairs(tmp_path / "pairs.parquet", [*pairs, again])
    first, asked, blank, same, labelled = read_pair_table(tmp_path / "pairs.parquet").context_R
    assert asked == same and first == labelled and len({first, asked, blank}) == 3
