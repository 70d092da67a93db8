"""What a judge's margins are worth: how often it is right by how far it puts the sides apart.

The chance that side 0 is preferred is modelled as sigma(margin / T), margin = score of side 0 less that of side 1
(Bradley and Terry 1952). T is fitted by maximum likelihood; the expected calibration error is the mean distance between
chance and frequency over ten equal bins, weighted by their counts (Naeini, Cooper and Hauskrecht 2015).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from btrm.metrics.pairwise import Floats

_BISECTIONS = 60  # to a float's precision
_ROUNDING = 1e-9  # of the widest margin: far below a step of any scale, far above a float's error


@dataclass(frozen=True, slots=True)
class MarginBin:
    """The pairs with low <= |margin| < high (the last bin: <= high), and how many of them are right, ties half."""

    low: float
    high: float
    n: int
    accuracy: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted temperature, in score units, with its mean log-loss (nats; ln 2 is a coin's) and calibration error.

    `temperature` is 0 where larger margins never were wrong, and infinite where they tell nothing.
    """

    temperature: float
    log_loss: float
    ece: float


def margin_bins(margin_P: Floats, widest: float, bins: int = 10) -> list[MarginBin]:
    """Return equal bins of |margin| in [0, widest]; `margin_P` is the preferred side's score less the other's.

    A margin that is an edge but for a float's error lies in the bin above it.
    """
    edges = np.linspace(0.0, widest, bins + 1)
    # 1.2 is a lower edge of [0, 4], though its float is below that of 3 * 0.4
    margin = np.abs(margin_P) + _ROUNDING * widest
    place_P = np.clip(np.searchsorted(edges, margin, side="right") - 1, 0, bins - 1)
    n = np.bincount(place_P, minlength=bins)
    right = np.bincount(place_P, 0.5 + 0.5 * np.sign(margin_P), bins)
    return [
        MarginBin(float(edges[b]), float(edges[b + 1]), int(n[b]), float(right[b] / n[b]) if n[b] else math.nan)
        for b in range(bins)
    ]


def calibrate(margin_P: Floats, side0_P: Floats) -> Calibration:
    """Fit T to pairs with a label; `margin_P` is side 0's score less side 1's.

    `side0_P` is 1 where side 0 is preferred, else 0.
    """
    if not len(margin_P):
        return Calibration(math.nan, math.nan, math.nan)
    agreed_P = margin_P * np.where(side0_P > 0.5, 1.0, -1.0)
    temperature = fit_temperature(agreed_P)
    with np.errstate(divide="ignore", over="ignore"):
        scaled_P = np.divide(agreed_P, temperature, out=np.zeros(len(agreed_P)), where=agreed_P != 0)
        chance_P = 1 / (1 + np.exp(-np.where(side0_P > 0.5, scaled_P, -scaled_P)))
    return Calibration(temperature, float(np.mean(np.logaddexp(0.0, -scaled_P))), expected_error(chance_P, side0_P))


def fit_temperature(agreed_P: Floats) -> float:
    """Return the T that minimises the mean of log(1 + exp(-agreed_P / T)): 0 where no margin is wrong, may be inf."""
    if agreed_P.sum() > 0 and agreed_P.min() >= 0:
        return 0.0
    return float(fit_temperatures(agreed_P, np.ones((1, len(agreed_P))), np.zeros(1))[0])


def fit_temperatures(margin_U: Floats, weight_FU: Floats, doubt_F: Floats) -> Floats:
    """Return temperature_F of F fits to the same margins, each with its own weights; infinite where they tell nothing.

    With doubt e, a label is right with chance 1 - e: T minimises the weighted mean of (1 - e) log(1 + exp(-margin / T))
    + e log(1 + exp(margin / T)). That is convex in 1 / T: its slope, the sum of weight * margin * (e - sigma(-margin /
    T)), is bisected to its only zero. A fit without doubt needs a margin below 0.
    """
    unit = float(np.abs(margin_U).max(initial=0.0)) or 1.0
    share_FU = weight_FU * (margin_U / unit)

    def rising(beta_F: Floats) -> NDArray[np.bool_]:
        wrong_FU = np.exp(-np.logaddexp(0.0, beta_F[:, None] * (margin_U / unit)))
        return np.sum(share_FU * (doubt_F[:, None] - wrong_FU), axis=1) >= 0

    telling_F = share_FU.sum(axis=1) > 0
    low_F, high_F = np.zeros(len(doubt_F)), np.ones(len(doubt_F))
    while not np.all(rising(high_F) | ~telling_F):
        high_F = np.where(rising(high_F) | ~telling_F, high_F, 2 * high_F)
    for _ in range(_BISECTIONS):
        middle_F = (low_F + high_F) / 2
        up_F = rising(middle_F)
        low_F, high_F = np.where(up_F, low_F, middle_F), np.where(up_F, middle_F, high_F)
    return np.where(telling_F, unit / high_F, np.inf)


def expected_error(chance_P: Floats, outcome_P: Floats, bins: int = 10) -> float:
    """Return the expected calibration error over equal bins of [0, 1]; NaN without pairs."""
    if not len(chance_P):
        return math.nan
    place_P = np.minimum((chance_P * bins).astype(np.int64), bins - 1)
    gap = np.bincount(place_P, chance_P - outcome_P, bins)
    return float(np.abs(gap).sum() / len(chance_P))
