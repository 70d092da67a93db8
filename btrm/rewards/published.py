"""The seven published rewards as rows of one table: opponent x shape x weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Opponent = Literal["mean", "aligned"]
ShapeName = Literal["log_sigmoid", "sign", "graded", "soft_margin"]
WeightName = Literal["uniform", "step", "sigmoid"]
Temperature = Literal["delta_temp", "score_temp"]


@dataclass(frozen=True, slots=True)
class PublishedReward:
    """One reward: whom a completion is compared with, what its margin is worth, how its pair is weighted.

    `temperature` names the knob that divides the margin, for shape and weight alike; `parse_fail` and `hard_tau` are
    the defaults of those knobs. The sign shape fails at its own negative reward instead.
    """

    opponent: Opponent
    shape: ShapeName
    weight: WeightName
    temperature: Temperature
    parse_fail: float
    hard_tau: float = 1.0


PUBLISHED: dict[str, PublishedReward] = {
    "bt_pointwise_baseline": PublishedReward("mean", "log_sigmoid", "uniform", "delta_temp", -1.0),
    "bt_pointwise_pair_shared": PublishedReward("aligned", "log_sigmoid", "uniform", "delta_temp", -1.0),
    "bt_pointwise_baseline_hardmine": PublishedReward("mean", "log_sigmoid", "step", "delta_temp", -1.0, 0.25),
    "bt_pointwise_graded": PublishedReward("mean", "graded", "uniform", "score_temp", -0.5),
    "bt_pointwise_graded_hardpair": PublishedReward("mean", "graded", "sigmoid", "score_temp", -0.5),
    "bt_hard_margin": PublishedReward("mean", "soft_margin", "sigmoid", "score_temp", -1.0),
    "bt_pointwise_binary": PublishedReward("mean", "sign", "uniform", "delta_temp", -1.0),
}
