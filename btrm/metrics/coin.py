"""Intervals of losses at a fitted temperature: what a judge gains on a coin, by its root.

The gain (a coin's loss less the judge's) is about quadratic in how much the margins tell: its standard error falls with
the gain itself, to 0 where they tell nothing, and an interval of the loss's own resamples is far too narrow for a weak
judge. The gain's root has one standard error throughout, so the interval is made there and squared again (a
variance-stabilising transformation: DiCiccio and Romano 1988, section 5, on the bootstrap's use of them). With g the
gain at the temperature of all pairs, and d a resample's distance from it, g + d becomes (root(g) + d / (2 root(g)))**2;
below a root of 0 the margins tell nothing, and there the gain is 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from btrm.metrics.bootstrap import Interval, student_quantile
from btrm.metrics.crossfit import Fitted, sigma, softplus
from btrm.metrics.pairwise import Floats, Ints

COINS = {"fitted_log_loss": math.log(2), "brier": 0.25}
_OF_NOTHING = {"fitted_log_loss": 0.5, "brier": 0.25}  # gain over mean(margin)**2 / mean(margin**2), for small means


@dataclass(frozen=True, slots=True)
class Gains:
    """What is gained on a coin, by metric. `most_of_nothing` bounds it where the fitted temperature is infinite.

    That is NaN where there is no telling: with one context, and where all pairs are ties.
    """

    gain: dict[str, float]
    most_of_nothing: dict[str, float]

    def interval(self, name: str, value: float, linear: Interval) -> Interval:
        """Return the interval of a loss, from the one at temperatures that stay as they are (undefined: it is, too)."""
        gain, most = self.gain[name], self.most_of_nothing[name]
        if math.isnan(most):
            return Interval(math.nan, math.nan)
        if math.isnan(linear.low) or not gain > 0:  # losses that are all alike: their temperatures are infinite
            return Interval(max(0.0, value - most), value)
        high, low = (_squared(gain, value - limit) for limit in (linear.low, linear.high))
        # a step far longer than the root tells nothing: where the gain is next to none, the margins bound it
        high = min(high, 4 * max(gain, most), COINS[name])
        return Interval(max(0.0, value + gain - high), value + gain - low)


def _squared(gain: float, distance: float) -> float:
    return max(0.0, math.sqrt(gain) + distance / (2 * math.sqrt(gain))) ** 2


def gains(fitted: Fitted, cluster_P: Ints) -> Gains:
    """Return the gains of a judge; `cluster_P` are 0, 1, ..."""
    told_P = ~np.isnan(fitted.margin_P)
    margin_N = fitted.margin_P[told_P]
    logit_N = margin_N / fitted.temperature
    losses = {"fitted_log_loss": softplus(-logit_N), "brier": sigma(-logit_N) ** 2}
    most = _largest_mean(margin_N, cluster_P[told_P])
    return Gains(
        {name: coin - float(losses[name].mean()) if len(margin_N) else math.nan for name, coin in COINS.items()},
        {name: share * most**2 for name, share in _OF_NOTHING.items()},
    )


def _largest_mean(margin_N: Floats, cluster_N: Ints, level: float = 0.95) -> float:
    """Return the upper end of the interval of mean(margin) / root mean square, at least 0 (NaN: untold).

    Whole clusters are drawn.
    """
    sums, counts = np.bincount(cluster_N, margin_N), np.bincount(cluster_N)
    clusters = int(np.count_nonzero(counts))
    square = float(margin_N @ margin_N) / max(len(margin_N), 1)
    if clusters < 2 or square == 0:
        return math.nan
    residuals = sums - float(margin_N.mean()) * counts
    error = math.sqrt(clusters / (clusters - 1) * float(residuals @ residuals)) / len(margin_N)
    reach = float(margin_N.mean()) + student_quantile((1 + level) / 2, clusters - 1) * error
    return max(0.0, reach) / math.sqrt(square)
