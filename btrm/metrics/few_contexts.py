"""95 % intervals of means over contexts, also where there are few contexts, one, or all are alike.

With many contexts they are the bootstrap's percentiles. With few, a resample's spread says little of how skewed the
mean's own distribution is: there it is Student's t with C - 1 degrees on a scale on which a mean has no bound, the
logit of a share and the logarithm of a loss, with the error that the jackknife over contexts tells, by
the delta method on that scale. One context tells nothing of how contexts differ: no interval is defined.
"""

from __future__ import annotations

import math

import numpy as np

from btrm.metrics.bootstrap import Interval, edge_interval, percentile_interval, student_quantile
from btrm.metrics.pairwise import Floats

FEW = 20  # with fewer contexts, intervals are rough whatever the method
PERCENTILES_FROM = 40
_ALIKE = 1e-9  # an error below that is a float's
_UPPER = 0.975
UNDEFINED = Interval(math.nan, math.nan)


def ratio_error(top_C: Floats, bottom_C: Floats) -> float:
    """Return the jackknife's standard error of sum(top) / sum(bottom) over contexts; NaN with fewer than two.

    Leaving each context out makes up for how far a large one draws the ratio to itself (MacKinnon and White 1985). It
    is 0 where all contexts are alike but for a float's error.
    """
    n = int(np.count_nonzero(bottom_C))
    if n < 2:
        return math.nan
    total = float(bottom_C.sum())
    moved_C = (top_C - top_C.sum() / total * bottom_C) / (total - bottom_C)
    error = math.sqrt((n - 1) / n * float(moved_C @ moved_C))
    return error if error >= _ALIKE else 0.0


def share_interval(value: float, error: float, value_B: Floats, n_contexts: int) -> Interval:
    """Return the interval of a mean of values in [0, 1].

    Where all contexts are alike (all right, or no answer with a score), no resample differs from another: it is what so
    many of them leave open (bootstrap.edge_interval).
    """
    if math.isnan(value) or n_contexts < 2:
        return UNDEFINED
    if error == 0:
        return edge_interval(value, n_contexts)
    if n_contexts >= PERCENTILES_FROM:
        return percentile_interval(value_B, n_drawn=n_contexts)
    middle, reach = math.log(value / (1 - value)), _reach(error, n_contexts) / (value * (1 - value))
    low, high = ((1 + math.tanh((middle + sign * reach) / 2)) / 2 for sign in (-1, 1))
    return Interval(low, high)


def loss_interval(value: float, error: float, value_B: Floats, n_contexts: int) -> Interval:
    """Return the interval of a mean of losses, which have no upper bound: undefined where all contexts are alike."""
    if n_contexts < 2 or not error > 0:
        return UNDEFINED
    if n_contexts >= PERCENTILES_FROM:
        return percentile_interval(value_B, n_drawn=n_contexts)
    reach = _reach(error, n_contexts) / value
    return Interval(value * math.exp(-reach), value * math.exp(min(reach, 700.0)))


def linear_interval(value: float, error: float, value_B: Floats, n_contexts: int) -> Interval:
    """Return the interval of a mean as it is, with few contexts value -+ t error: for what is transformed later on."""
    if n_contexts < 2 or not error > 0:
        return UNDEFINED
    if n_contexts >= PERCENTILES_FROM:
        return percentile_interval(value_B, n_drawn=n_contexts)
    reach = _reach(error, n_contexts)
    return Interval(value - reach, value + reach)


def difference_interval(value: float, error: float, value_B: Floats, n_contexts: int) -> Interval:
    """Return the interval of a mean of differences in [-1, 1].

    Where all contexts differ alike, so that no resample tells, it is what so many of them leave open.
    """
    found = linear_interval(value, error, value_B, n_contexts)
    if error == 0:
        left_open = edge_interval(0.0, n_contexts).high
        found = Interval(value - left_open, value + left_open)
    return found if math.isnan(found.low) else Interval(max(-1.0, found.low), min(1.0, found.high))


def with_upper_tail(interval: Interval, value: float, error: float, n_contexts: int, most: float) -> Interval:
    """Return the interval of a loss, with few contexts up to loss_interval's end, at most to `most`.

    A good judge's loss lies in a few bad contexts, of which few contexts may hold none.
    """
    own = loss_interval(value, error, np.empty(0), n_contexts) if n_contexts < PERCENTILES_FROM else UNDEFINED
    if math.isnan(own.high) or math.isnan(interval.high):
        return interval
    return Interval(interval.low, max(interval.high, min(most, own.high)))


def _reach(error: float, n_contexts: int) -> float:
    return student_quantile(_UPPER, n_contexts - 1) * error
