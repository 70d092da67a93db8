"""The low-std filter and the pair weights, each by hand; and the train metrics."""

from __future__ import annotations

import numpy as np
import pytest

from btrm.train.advantages import Scored, group_std, shape_advantages, train_metrics

REWARD_N = np.array([0.0, 1.0, 0.0, 0.01, 2.0, 2.0])  # three groups of two: std .707, .00707, 0
ONES = np.ones(6)


def normalised(reward_N: np.ndarray) -> np.ndarray:
    grouped = reward_N.reshape(-1, 2)
    return ((grouped - grouped.mean(1, keepdims=True)) / (grouped.std(1, ddof=1, keepdims=True) + 1e-4)).ravel()


def test_group_std_is_the_trainers() -> None:
    assert group_std(REWARD_N, 2) == pytest.approx(np.repeat([0.5**0.5, 0.01 * 0.5**0.5, 0.0], 2))


def test_the_filter_leaves_other_groups_alone() -> None:
    shaped = shape_advantages(normalised(REWARD_N), REWARD_N, ONES, 2, 0.05)
    assert shaped[:2] == pytest.approx(normalised(REWARD_N)[:2])
    assert (shaped[2:] == 0).all()


def test_weights_survive_normalisation() -> None:
    weight_N = np.repeat([1.0, 0.1, 0.5], 2)
    plain = shape_advantages(normalised(REWARD_N), REWARD_N, ONES, 2, 0.0)
    assert plain == pytest.approx(normalised(REWARD_N))
    assert shape_advantages(normalised(REWARD_N), REWARD_N, weight_N, 2, 0.0) == pytest.approx(plain * weight_N)
    # inside the reward they are gone after normalisation, but for the epsilon
    assert normalised(REWARD_N * weight_N)[:2] == pytest.approx(plain[:2], rel=1e-3)


def test_metrics_are_over_all_ranks() -> None:
    nan = np.nan
    parts = [
        Scored(np.array([1.0, -1.0]), np.array([5.0, -5.0]), ["scored", "scored"]),
        Scored(np.array([0.0, -3.0]), np.array([0.0, nan]), ["scored", "unparsed"]),
    ]
    assert train_metrics(parts) == pytest.approx(
        {
            "frac_unparsed": 0.25,
            "frac_correct": 0.25,
            "tie_rate": 1 / 3,
            "margin_mean": 0.0,
            "reward_scored": 0.0,
            "reward_unparsed": -3.0,
        }
    )


def test_metrics_of_nothing_but_junk() -> None:
    metrics = train_metrics([Scored(np.array([-3.0]), np.array([np.nan]), ["truncated"])])
    assert metrics == {"frac_unparsed": 1.0, "frac_correct": 0.0, "tie_rate": 0.0, "reward_truncated": -3.0}
