"""A reward that varies for most pairs and not for others, whatever is written: for counting what is trained on."""

from __future__ import annotations

import numpy as np

from btrm.rewards.config import RewardConfig
from btrm.rewards.pair_batch import PairBatch


def varied(batch: PairBatch, config: RewardConfig) -> np.ndarray:  # noqa: ARG001
    """Rewards 0, 1, 2, … within each side; one pair in three earns the same for everything, one for its side 0."""
    kind_N = np.array([int(str(name)[:4], 16) % 3 for name in batch.pair_ids])[batch.pair_N]
    flat_N = (kind_N == 0) | ((kind_N == 1) & (batch.side_N == 0))
    return np.where(flat_N, 1.0, np.arange(len(batch)) % 4)
