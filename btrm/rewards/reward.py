"""reward = shape(margin / temperature), pair weights apart; what is unparsed is never worth more than a score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btrm.config import ConfigError
from btrm.plugins import load_object
from btrm.rewards.config import RewardConfig
from btrm.rewards.pair_batch import Floats, PairBatch
from btrm.rewards.shapes import SHAPES
from btrm.rewards.weights import WEIGHTS
from btrm.scores import PARSERS, parse_scores

OwnReward = Callable[[PairBatch, RewardConfig], Floats]


@dataclass(frozen=True, slots=True)
class Rewards:
    """What N completions earn.

    `weight_N` multiplies the advantage after normalisation; all ones where weights are in the reward. `margin_N` is
    over the reward's own opponent, > 0 agrees with the label, NaN without a score or an opponent.
    """

    reward_N: Floats
    weight_N: Floats
    margin_N: Floats


def compute_rewards(batch: PairBatch, config: RewardConfig) -> Rewards:
    """Return the rewards of a batch under one config.

    A completion without a score or an opponent earns `parse_fail`. With `unparsed=floor` one without a score never
    earns more than the lowest scored reward of its group (its side of the pair; the pair where that side has no
    score), so that writing no score is never a way out. Raises ConfigError for a user's reward that returns anything
    but one finite number a scored completion.
    """
    config = config.resolved()
    assert config.parse_fail is not None
    parts = config.parts
    temperature = getattr(config, parts.temperature)
    opponent_N = batch.aligned_opponent_N if parts.opponent == "aligned" else batch.mean_opponent_N
    margin_N = batch.sign_N * (batch.score_N - opponent_N)
    if config.own:
        reward_N, weight_N = _own(batch, config), np.ones(len(batch))
    else:
        reward_N = SHAPES[parts.shape](margin_N / temperature, config)
        weight_N = WEIGHTS[parts.weight](batch.pair_margin_N / temperature, config)
    if config.weight_on == "reward":
        reward_N, weight_N = reward_N * weight_N, np.ones(len(batch))
    reward_N = np.where(np.isnan(reward_N), config.parse_fail, reward_N)
    if config.unparsed == "floor":
        reward_N = _floor(reward_N, batch)
    return Rewards(reward_N, weight_N, margin_N)


def reward_completions(
    completions: Sequence[str],
    pair_id: Sequence[str] | Sequence[int],
    side: Sequence[int],
    preferred_side: Sequence[int],
    config: RewardConfig,
) -> Rewards:
    """Parse completions and reward them; see PairBatch.build and compute_rewards for what is refused."""
    scores = parse_scores(completions, PARSERS[config.parser])
    return compute_rewards(PairBatch.build(scores, pair_id, side, preferred_side, config.lone_side), config)


def _floor(reward_N: Floats, batch: PairBatch) -> Floats:
    """Lower unparsed rewards to the lowest scored one of the side, or of the pair where the side has none."""
    unparsed = np.isnan(batch.score_N)
    if not unparsed.any():
        return reward_N
    group_N = batch.group_N
    lowest = np.full(2 * len(batch.pair_ids), np.inf)
    np.minimum.at(lowest, group_N[~unparsed], reward_N[~unparsed])
    lowest = np.where(np.isinf(lowest), np.minimum(lowest[0::2], lowest[1::2]).repeat(2), lowest)
    return np.where(unparsed, np.minimum(reward_N, lowest[group_N]), reward_N)


def _own(batch: PairBatch, config: RewardConfig) -> Floats:
    """Call a user's reward; NaN is taken only where a completion has no score or no opponent."""
    function: Any = load_object(config.name)
    returned: NDArray[Any] = np.asarray(function(batch, config))
    if returned.shape != (len(batch),) or not np.issubdtype(returned.dtype, np.number):
        raise ConfigError(
            f"{config.name}: expected {len(batch)} numbers, got shape {returned.shape} of {returned.dtype}"
        )
    reward_N = returned.astype(np.float64)
    bad = np.flatnonzero(np.isinf(reward_N) | (np.isnan(reward_N) & ~np.isnan(batch.margin_N)))
    if len(bad):
        raise ConfigError(f"{config.name}: reward {reward_N[bad[0]]} for row {bad[0]}, score {batch.score_N[bad[0]]}")
    return reward_N
