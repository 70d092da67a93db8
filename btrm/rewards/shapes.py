"""Shapes: what a margin is worth, monotone in it.

Each takes margin/temperature and may overwrite it: at these sizes memory, not arithmetic, is what costs. NaN stays NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from btrm.rewards.published import ShapeName

if TYPE_CHECKING:
    from btrm.rewards.config import RewardConfig

Floats = NDArray[np.float64]
_BLOCK = 8192


def log_sigmoid(x: Floats) -> Floats:
    """Return log(1 / (1 + exp(-x))) without overflow, to the last few bits."""
    return _log_sigmoid(x.copy())


def _log_sigmoid(x: Floats) -> Floats:
    """Overwrite x with min(x, 0) - log(1 + exp(-|x|)), a cache-sized block at a time."""
    for start in range(0, len(x), _BLOCK):
        block = x[start : start + _BLOCK]
        tail = np.abs(block)
        for step in (np.negative, np.exp, np.log1p):
            step(tail, out=tail)
        np.minimum(block, 0.0, out=block)
        block -= tail
    return x


def _log_sigmoid_shape(x_N: Floats, config: RewardConfig) -> Floats:
    """Bradley-Terry log-likelihood of the label: scale * log sigmoid(clipped x) + offset."""
    np.clip(x_N, -(config.delta_neg_clip or np.inf), config.delta_clip or np.inf, out=x_N)
    _log_sigmoid(x_N)
    x_N *= config.scale
    x_N += config.offset
    return x_N


def _sign_shape(x_N: Floats, config: RewardConfig) -> Floats:
    """`pos` for a margin above 0, `neg` for any other: a tie is not a win."""
    return _keep_nan(x_N, np.where(x_N > 0, config.pos, config.neg))


def _graded_shape(x_N: Floats, config: RewardConfig) -> Floats:
    """`wrong` up to 0, `low` up to and with the threshold, `high` above it."""
    right = np.where(x_N <= config.grade_thresh, config.low, config.high)
    return _keep_nan(x_N, np.where(x_N <= 0, config.wrong, right))


def _soft_margin_shape(x_N: Floats, config: RewardConfig) -> Floats:
    """Log sigmoid((x - gamma) / margin_temp): right is not enough, it takes gamma."""
    return _log_sigmoid((x_N - config.margin_gamma) / config.margin_temp)


def _keep_nan(x_N: Floats, reward_N: Floats) -> Floats:
    return np.where(np.isnan(x_N), np.nan, reward_N)


SHAPES: dict[ShapeName, Callable[[Floats, RewardConfig], Floats]] = {
    "log_sigmoid": _log_sigmoid_shape,
    "sign": _sign_shape,
    "graded": _graded_shape,
    "soft_margin": _soft_margin_shape,
}
