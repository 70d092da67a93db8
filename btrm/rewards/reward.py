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
from btrm.rewards.pair_batch import Floats, PairBatch, without_dust
from btrm.rewards.shapes import SHAPES
from btrm.rewards.weights import WEIGHTS
from btrm.scores import OUTCOMES, PARSERS, Outcome, parse_texts

# A user's own reward: NaN where a completion has no score or no opponent is filled in as for the published ones.
OwnReward = Callable[[PairBatch, RewardConfig], Floats]
_SCORED, _UNPARSED = (np.int8(OUTCOMES.index(outcome)) for outcome in (Outcome.SCORED, Outcome.UNPARSED))


@dataclass(frozen=True, slots=True)
class Rewards:
    """What N completions earn.

    `weight_N` multiplies the advantage after normalisation; all ones where weights are in the reward. `margin_N` is
    over the reward's own opponent, > 0 agrees with the label, NaN without a score or an opponent. `outcome_N` indexes
    OUTCOMES.
    """

    reward_N: Floats
    weight_N: Floats
    margin_N: Floats
    outcome_N: NDArray[np.int8]


def compute_rewards(batch: PairBatch, config: RewardConfig, outcome_N: NDArray[np.int8] | None = None) -> Rewards:
    """Return the rewards of a batch under one config; outcomes, where not given, are scored and unparsed.

    A completion without a score or an opponent earns `parse_fail`. With `unparsed=floor` one without a score never
    earns more than the lowest scored reward of its group (its side of the pair; the pair where that side has no
    score), so that writing no score is never a way out. Raises ConfigError for a user's reward that returns anything
    but one finite number a scored completion.
    """
    config = config.resolved()
    assert config.parse_fail is not None
    parts = config.parts
    temperature = getattr(config, parts.temperature)
    tidy = without_dust if config.ties == "exact" else _as_it_is
    margin_N = tidy(batch.margin_over(parts.opponent))
    weight_N = np.broadcast_to(1.0, len(batch))
    reward_N = _own(batch, config) if config.own else SHAPES[parts.shape](margin_N / temperature, config)
    if parts.weight != "uniform":
        weight_N = WEIGHTS[parts.weight](tidy(batch.pair_margin()) / temperature, config)[batch.pair_N]
    if config.weight_on == "reward":
        reward_N, weight_N = reward_N * weight_N, np.broadcast_to(1.0, len(batch))
    reward_N[np.isnan(reward_N)] = config.parse_fail
    if config.unparsed == "floor":
        _floor(reward_N, batch)
    if outcome_N is None:
        outcome_N = np.where(np.isnan(batch.score_N), _UNPARSED, _SCORED)
    return Rewards(reward_N, weight_N, margin_N, outcome_N)


def reward_completions(
    completions: Sequence[str],
    pair_id: Sequence[str] | Sequence[int],
    side: Sequence[int],
    preferred_side: Sequence[int],
    config: RewardConfig,
) -> Rewards:
    """Parse completions and reward them; see PairBatch.build and compute_rewards for what is refused."""
    read = parse_texts(completions, PARSERS[config.parser])
    batch = PairBatch.build(read.score_N, pair_id, side, preferred_side, config.lone_side)
    return compute_rewards(batch, config, read.outcome_N)


def _as_it_is(margin: Floats) -> Floats:
    return margin


def _floor(reward_N: Floats, batch: PairBatch) -> None:
    """Lower, in place, unparsed rewards to the lowest scored one of the side; of the pair where the side has none."""
    unparsed = np.isnan(batch.score_N)
    group = batch.group_N[unparsed]
    if not len(group):
        return
    lowest = np.full(batch.rows_P2.shape, np.inf)
    np.minimum.at(lowest.reshape(-1), batch.group_N[~unparsed], reward_N[~unparsed])
    of_pair = lowest.min(axis=1, keepdims=True)
    lowest = np.where(np.isinf(lowest), of_pair, lowest)
    reward_N[unparsed] = np.minimum(reward_N[unparsed], lowest.reshape(-1)[group])


def _own(batch: PairBatch, config: RewardConfig) -> Floats:
    """Call a user's reward; NaN is taken only where a completion has no score or no opponent."""
    function: OwnReward = load_object(config.name)
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
