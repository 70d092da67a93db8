"""Shapes: what a margin is worth. Each takes margin/temperature, NaN stays NaN; each is monotone in the margin."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from btrm.rewards.published import ShapeName

if TYPE_CHECKING:
    from btrm.rewards.config import RewardConfig

Floats = NDArray[np.float64]


def log_sigmoid(x: Floats) -> Floats:
    """Return log(1 / (1 + exp(-x))) without overflow, to the last few bits."""
    return np.minimum(x, 0.0) - np.log1p(np.exp(-np.abs(x)))


def _log_sigmoid_shape(x_N: Floats, config: RewardConfig) -> Floats:
    """Bradley-Terry log-likelihood of the label: scale * log sigmoid(clipped x) + offset."""
    high = config.delta_clip or np.inf
    low = -(config.delta_neg_clip or np.inf)
    return config.scale * log_sigmoid(np.clip(x_N, low, high)) + config.offset


def _sign_shape(x_N: Floats, config: RewardConfig) -> Floats:
    """`pos` for a margin above 0, `neg` for any other: a tie is not a win."""
    return _keep_nan(x_N, np.where(x_N > 0, config.pos, config.neg))


def _graded_shape(x_N: Floats, config: RewardConfig) -> Floats:
    """`wrong` up to 0, `low` up to and with the threshold, `high` above it."""
    right = np.where(x_N <= config.grade_thresh, config.low, config.high)
    return _keep_nan(x_N, np.where(x_N <= 0, config.wrong, right))


def _soft_margin_shape(x_N: Floats, config: RewardConfig) -> Floats:
    """Log sigmoid((x - gamma) / margin_temp): right is not enough, it takes gamma."""
    return log_sigmoid((x_N - config.margin_gamma) / config.margin_temp)


def _keep_nan(x_N: Floats, reward_N: Floats) -> Floats:
    return np.where(np.isnan(x_N), np.nan, reward_N)


SHAPES: dict[ShapeName, Callable[[Floats, RewardConfig], Floats]] = {
    "log_sigmoid": _log_sigmoid_shape,
    "sign": _sign_shape,
    "graded": _graded_shape,
    "soft_margin": _soft_margin_shape,
}
