"""Weights: how much a pair counts, by its mean margin/temperature. Hard pairs count more than easy ones.

A weight is constant within a prompt's group, so that normalisation by the group's std cancels it when it stands in the
reward. On the advantage, after normalisation, it counts (dynamically weighted reward learning, arXiv 2510.15242).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from btrm.rewards.published import WeightName

if TYPE_CHECKING:
    from btrm.rewards.config import RewardConfig

Floats = NDArray[np.float64]


def _uniform(x: Floats, _config: RewardConfig) -> Floats:
    """Every pair counts 1."""
    return np.ones_like(x)


def _step(x: Floats, config: RewardConfig) -> Floats:
    """1 for a wrong pair, lambda for a right one below tau, eps from tau on; 1 where the margin is unknown."""
    assert config.hard_tau is not None, "config.resolved() gives it a value"
    right = np.where(x < config.hard_tau, config.hard_lambda, config.hard_eps)
    return np.where(x >= 0, right, 1.0)


def _sigmoid(x: Floats, config: RewardConfig) -> Floats:
    """Sigmoid(-x / tau): near 1 for a pair far wrong, 1/2 at a tie; 1 where the margin is unknown."""
    assert config.hard_tau is not None, "config.resolved() gives it a value"
    weight = 1.0 / (1.0 + np.exp(np.minimum(x / config.hard_tau, 700.0)))
    return np.where(np.isnan(x), 1.0, weight)


WEIGHTS: dict[WeightName, Callable[[Floats, RewardConfig], Floats]] = {
    "uniform": _uniform,
    "step": _step,
    "sigmoid": _sigmoid,
}
