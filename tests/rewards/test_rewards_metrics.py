from __future__ import annotations

import numpy as np
import pytest

from btrm.rewards.config import RewardConfig
from btrm.rewards.metrics import reward_metrics
from btrm.rewards.pair_batch import PairBatch
from btrm.rewards.reward import compute_rewards
from btrm.scores import PARSERS, parse_texts


def test_metrics_of_a_small_batch():
    texts = ["<s>80</s>", "none", "<s>140</s>", "<s>60</s>", "<s>50</s>", "<s>60</s>", "<s>70</s>", "<s>60</s>"]
    read = parse_texts(texts, PARSERS["score100_last"])
    batch = PairBatch.build(read.score_N, ["a"] * 8, [0] * 4 + [1] * 4, [0] * 8)
    config = RewardConfig(name="bt_pointwise_binary", unparsed="published", parse_fail=-5.0)
    metrics = reward_metrics(compute_rewards(batch, config, read.outcome_N))
    # Side 0 has a mean of 70, side 1 of 60: margins 20, 0 on side 0 and 20, 10, 0, 10 on side 1.
    assert metrics == pytest.approx(
        {
            "frac_unparsed": 0.25,
            "frac_correct": 4 / 8,
            "tie_rate": 2 / 6,
            "margin_mean": 10.0,
            "weight_mean": 1.0,
            "reward/scored": (4 - 2) / 6,
            "reward/unparsed": -5.0,
            "reward/out_of_range": -5.0,
        }
    )


def test_a_mean_over_nothing_is_left_out():
    batch = PairBatch.build([np.nan, np.nan], ["a", "a"], [0, 1], [0, 0])
    metrics = reward_metrics(compute_rewards(batch, RewardConfig()))
    assert metrics == {"frac_unparsed": 1.0, "frac_correct": 0.0, "weight_mean": 1.0, "reward/unparsed": -1.0}
