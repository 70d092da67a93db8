"""How much a judge goes by length: the shortcut that a judge of quality must be told apart from."""

from __future__ import annotations

import math

import numpy as np

from btrm.metrics.correlation import spearman
from btrm.metrics.pairwise import Floats, Ints


def length_correlation(score_P2: Floats, length_P2: Ints) -> float:
    """Return Spearman's correlation, within pairs, of what a side scores more and how much longer it is (characters).

    Both differences are taken in both orders of the sides, so that it does not matter which is which: 1 where the
    longer one always scores higher and more so the longer it is. Within pairs, since contexts differ in how long their
    responses are (Singhal et al. 2023, arXiv 2310.03716, within batches); ranks, since lengths have long tails.
    """
    lead_P, longer_P = score_P2[:, 0] - score_P2[:, 1], (length_P2[:, 0] - length_P2[:, 1]).astype(np.float64)
    told_P = ~np.isnan(lead_P)
    lead_N, longer_N = lead_P[told_P], longer_P[told_P]
    return spearman(np.concatenate([lead_N, -lead_N]), np.concatenate([longer_N, -longer_N]))


def longer_wins(length_P2: Ints, preferred_P: Ints) -> float:
    """Return the accuracy of preferring the longer response, equal lengths half: what any judge must beat."""
    if not len(preferred_P):
        return math.nan
    longer_P = np.sign(length_P2[:, 0] - length_P2[:, 1]) * np.where(preferred_P == 0, 1, -1)
    return float(np.mean(0.5 + 0.5 * longer_P))
