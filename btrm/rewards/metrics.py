"""What a batch of rewards says about training, for the trainer's logs."""

from __future__ import annotations

import numpy as np

from btrm.rewards.reward import Rewards
from btrm.scores import OUTCOMES, Outcome


def reward_metrics(rewards: Rewards) -> dict[str, float]:
    """Return means over N completions.

    frac_unparsed: no valid score; frac_correct: margin > 0, so that no score and a tie are not correct; tie_rate:
    margin = 0 among those with a margin; margin_mean: in units of the score; reward/OUTCOME: mean reward of each
    outcome that occurs. A mean over nothing is left out.
    """
    margin = rewards.margin_N[~np.isnan(rewards.margin_N)]
    unparsed = rewards.outcome_N != OUTCOMES.index(Outcome.SCORED)
    means = {
        "frac_unparsed": unparsed,
        "frac_correct": rewards.margin_N > 0,
        "tie_rate": margin == 0,
        "margin_mean": margin,
        "weight_mean": rewards.weight_N,
    }
    for code in np.unique(rewards.outcome_N).tolist():
        means[f"reward/{OUTCOMES[code].value}"] = rewards.reward_N[rewards.outcome_N == code]
    return {name: float(np.mean(values)) for name, values in means.items() if len(values)}
