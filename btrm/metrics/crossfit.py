"""What a judge's margins are worth in chances, at a temperature that was not fitted to the pairs it is measured on.

The model is Bradley and Terry's (1952): the side with the higher score is preferred with chance sigma(|margin| / T). T
is fitted by maximum likelihood on the other folds and applied to its own (cross-fitting; Chernozhukov et al. 2018), so
the loss and the calibration are what new pairs would show, and a judge gains nothing by the scale of its scores. Folds
hold whole clusters. As in Platt (1999), a label is taken for right with chance (n + 1) / (n + 2) only, n the pairs
fitted to: T is then never 0, and a judge that is right about all of them does not lose everything at its first error.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from btrm.metrics.calibration import fit_temperatures
from btrm.metrics.pairwise import Floats, Ints


@dataclass(frozen=True, eq=False)
class Fitted:
    """Pairs with their chances. `margin_P` is the preferred side's score less the other's, NaN: does not count.

    temperature: of all pairs together, in score units, infinite where margins tell nothing; temperature_P: of the other
    folds' pairs, NaN where there are none.
    """

    margin_P: Floats
    temperature: float
    temperature_P: Floats

    @cached_property
    def logit_P(self) -> Floats:
        """margin / T: 0 for a tie and for an infinite T, NaN where the pair does not count."""
        return self.margin_P / self.temperature_P

    @cached_property
    def loss_P(self) -> Floats:
        """Log-loss in nats; ln 2 is a coin's."""
        return softplus(-self.logit_P)

    @cached_property
    def brier_P(self) -> Floats:
        """(1 - chance of the label) squared (Brier 1950, for two outcomes half of his sum); 1/4 is a coin's."""
        return sigma(-self.logit_P) ** 2

    @cached_property
    def confidence_P(self) -> Floats:
        """The chance of the side that the judge prefers, in [1/2, 1]."""
        return sigma(np.abs(self.logit_P))


def sigma(logit_N: Floats) -> Floats:
    """Return 1 / (1 + exp(-logit))."""
    return np.exp(-softplus(-logit_N))


def softplus(logit_N: Floats) -> Floats:
    """Return log(1 + exp(logit)); NaN stays NaN."""
    with np.errstate(invalid="ignore"):
        return np.logaddexp(0.0, logit_N)


def cross_fit(margin_P: Floats, fold_P: Ints) -> Fitted:
    """Fit a temperature for each fold to the pairs of all others, and one to all pairs."""
    counts_P = ~np.isnan(margin_P)
    margins, place = np.unique(margin_P[counts_P], return_inverse=True)
    folds = int(fold_P.max(initial=-1)) + 1
    cells = np.bincount(fold_P[counts_P] * len(margins) + place.ravel(), minlength=folds * len(margins))
    own = cells.reshape(folds, len(margins)).astype(np.float64)
    weights = np.concatenate([own.sum(0) - own, own.sum(0, keepdims=True)])
    doubts = 1 / (weights.sum(1) + 2)
    temperatures = np.where(weights.sum(1) > 0, fit_temperatures(margins, weights, doubts), np.nan)
    return Fitted(margin_P, float(temperatures[-1]), temperatures[:-1][fold_P])


def folds_of(cluster_P: Ints, pair_id_P: list[str], folds: int) -> Ints:
    """Deal whole clusters to folds 0, 1, ... in turn, in the order of their least pair_id.

    Those are hashes, so that is a random order, the same for every judge and whatever the order of the pairs. One
    cluster alone makes one fold, and nothing to fit on.
    """
    clusters, first_P = np.unique(cluster_P[np.argsort(np.array(pair_id_P))], return_index=True)
    rank = np.argsort(np.argsort(first_P))
    return rank[np.searchsorted(clusters, cluster_P)] % folds
