"""How much a judge of both responses at once favours the one that it is shown first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from btrm.metrics.bootstrap import Interval
from btrm.metrics.judged import clusters
from btrm.metrics.panel import Panel

_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class PositionBias:
    """How often the response shown first gets the higher score, ties half, over `n` answers about whole pairs.

    1/2 is no bias, since the order is drawn. The interval (95 %) resamples whole pairs.
    """

    n: int
    first_wins: float
    interval: Interval


def position_bias(leads: Sequence[float], pair_ids: Sequence[str], seed: int = 0) -> PositionBias:
    """Return the bias; `leads` are the scores of the response shown first less those of the other, a pair_id each."""
    if not leads:
        return PositionBias(0, math.nan, Interval(math.nan, math.nan))
    credit_P = 0.5 + 0.5 * np.sign(np.array(leads, dtype=np.float64))
    panel = Panel([credit_P[:, None]], [], clusters(list(pair_ids)), _RESAMPLES, seed)
    return PositionBias(len(leads), float(credit_P.mean()), panel.accuracy_interval(0))
