"""Verdicts with ties of a judge that scores each response alone, and how well they agree with people's.

Such a judge names no tie; its verdict comes from the difference D of both mean scores and a tie margin m: the first
response where D > m, the second where D < -m, a tie where |D| <= m. A pair with an unparsed side is a tie for every m.
Three margins are told, since the choice matters more than the judge on some sets:

- none: m = 0, only equal means are a tie;
- fitted: for each fifth of the pairs, the m that is best on the other four (pairs of one context stay together), or 0
  where what it gains there is no more than its standard error. This is the honest figure of a judge that is allowed to
  know how often people call a tie;
- best: the m that is best on these very pairs, which is how Auto-J's leaderboard treats reward models (it searches a
  threshold for "tie"): an upper bound, to be compared with that table alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from btrm.metrics.official_score import Estimate, mean_of
from btrm.metrics.pairwise import Floats, Ints

TIE = 2  # as a label beside 0 and 1
_FOLDS = 5


@dataclass(frozen=True, slots=True)
class TieVerdicts:
    """What people said of P items (0, 1, 2 a tie), and the judge's difference of mean scores, first less second.

    An item with an unparsed side has a difference of 0. `cluster_P`: items of one number are fitted together.
    """

    said_P: Ints
    difference_P: Floats
    cluster_P: Ints

    def verdict_P(self, margin_P: Floats | float) -> Ints:
        """Return what the judge says with a tie margin."""
        side_P = np.where(self.difference_P > 0, 0, 1)
        return np.where(np.abs(self.difference_P) <= margin_P, TIE, side_P)

    def by_margin(self) -> Iterator[tuple[str, Ints]]:
        """Yield (what the margin is, verdict_P) for the three margins, the honest one first."""
        yield "fitted tie margin", self.verdict_P(self.fitted_margin_P())
        yield "no tie margin", self.verdict_P(0.0)
        yield "best tie margin", self.verdict_P(best_margin(self.said_P, self.difference_P))

    def fitted_margin_P(self) -> Floats:
        """Return for each item the margin that the items of the other folds call for; 0 where there are none."""
        fold_P = self.cluster_P % _FOLDS
        margin_P = np.zeros(len(fold_P))
        for fold in range(_FOLDS):
            others_P = fold_P != fold
            margin_P[~others_P] = self._of(others_P).sure_margin()
        return margin_P

    def sure_margin(self) -> float:
        """Return the best margin, or 0 where its gain in right verdicts over 0 is within one standard error."""
        margin = best_margin(self.said_P, self.difference_P)
        right_P, right_at_0_P = (self.verdict_P(m) == self.said_P for m in (margin, 0.0))
        gain_P = right_P.astype(np.float64) - right_at_0_P
        return margin if gain_P.sum() > math.sqrt(float(gain_P @ gain_P)) else 0.0

    def _of(self, chosen_P: NDArray[np.bool_]) -> TieVerdicts:
        return TieVerdicts(self.said_P[chosen_P], self.difference_P[chosen_P], self.cluster_P[chosen_P])


def best_margin(said_P: Ints, difference_P: Floats) -> float:
    """Return the smallest tie margin with the highest accuracy; 0 without items."""
    size_P = np.abs(difference_P)
    right_P = said_P == np.where(difference_P > 0, 0, 1)
    order = np.argsort(size_P, kind="stable")
    # At a margin of size_P[order][i] the first i + 1 items are ties, the rest are decided.
    gained_P = np.cumsum((said_P == TIE)[order]) - np.cumsum(right_P[order])
    size_P = size_P[order]
    last_P = np.append(size_P[1:] != size_P[:-1], True) if len(size_P) else np.zeros(0, dtype=np.bool_)
    margins, gains = np.append(0.0, size_P[last_P]), np.append(_gain_at_zero(size_P, gained_P), gained_P[last_P])
    return float(margins[np.argmax(gains)])


def _gain_at_zero(size_P: Floats, gained_P: Ints) -> int:
    zeros = int(np.searchsorted(size_P, 0.0, side="right"))
    return int(gained_P[zeros - 1]) if zeros else 0


def accuracy(said_P: Ints, verdict_P: Ints) -> Estimate | None:
    """Return the share of items on which the judge says what people said."""
    return mean_of((said_P == verdict_P).astype(np.float64), np.ones(len(said_P), dtype=np.bool_))


def macro_f1(said_P: Ints, verdict_P: Ints) -> Estimate | None:
    """Return the mean F1 of the labels that people or the judge gave; one that they never gave together has 0.

    F1 = 2 both / (said + judged). An item's influence is the derivative of that ratio: (2 both_i - F1 given_i) / given.
    """
    if not len(said_P):
        return None
    parts = [(said_P == label, verdict_P == label) for label in range(3)]
    met = [(said.astype(float) + verdict, said & verdict) for said, verdict in parts if said.any() or verdict.any()]
    f1 = [2 * both.sum() / given.sum() for given, both in met]
    influence_P = np.mean([(2 * b - value * g) / g.sum() for value, (g, b) in zip(f1, met, strict=True)], 0)
    n = len(said_P)
    return Estimate(float(np.mean(f1)), np.ones(n, dtype=np.bool_), influence_P * math.sqrt(n / max(n - 1, 1)))
