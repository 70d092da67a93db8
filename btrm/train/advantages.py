"""What happens to advantages once they are scaled, and what a batch of completions says about training. numpy only.

Symbols: N completions, in groups of K of one prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scored:
    """Completions of one rank as they were rewarded."""

    reward_N: Floats
    margin_N: Floats
    outcome_N: Sequence[str]


def group_std(reward_N: Floats, num_generations: int) -> Floats:
    """Return each completion's group std (ddof 1, as the trainer's)."""
    grouped = reward_N.reshape(-1, num_generations)
    return np.repeat(grouped.std(axis=1, ddof=1), num_generations)


def shape_advantages(
    advantage_N: Floats,
    reward_N: Floats,
    weight_N: Floats,
    num_generations: int,
    min_std: float,
) -> Floats:
    """Return advantages with the low-std filter and the pair weights applied, in that order.

    filter: A = 0 where a group's std is below min_std; weights multiply last, where group normalisation cannot cancel
    them (DWRL, arXiv 2510.15242).
    """
    return np.where(group_std(reward_N, num_generations) < min_std, 0.0, advantage_N) * weight_N


def train_metrics(parts: Sequence[Scored]) -> dict[str, float]:
    """Return frac_unparsed, frac_correct, tie_rate, margin_mean and the mean reward of each outcome, over all ranks."""
    reward_N = np.concatenate([p.reward_N for p in parts])
    margin_N = np.concatenate([p.margin_N for p in parts])
    outcome_N = np.array([o for p in parts for o in p.outcome_N])
    scored = np.isfinite(margin_N)
    metrics = {
        "frac_unparsed": float(np.mean(outcome_N != "scored")),
        "frac_correct": float(np.mean(scored & (np.nan_to_num(margin_N) > 0))),
        "tie_rate": float(np.mean(margin_N[scored] == 0)) if scored.any() else 0.0,
    }
    if scored.any():
        metrics["margin_mean"] = float(margin_N[scored].mean())
    for outcome in np.unique(outcome_N):
        metrics[f"reward_{outcome}"] = float(reward_N[outcome_N == outcome].mean())
    return metrics
