"""One cell measured: its pairs' outcomes, their chances and errors, once for everything that is made of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from btrm.metrics.confidence import ReliabilityBin, reliability, risks
from btrm.metrics.crossfit import Fitted, cross_fit, folds_of
from btrm.metrics.judged import JudgedCell
from btrm.metrics.more_samples import MoreSamples, more_samples
from btrm.metrics.official import official_scores
from btrm.metrics.official_score import OfficialScore
from btrm.metrics.pairwise import Floats, PairOutcomes, UnparsedAs, metric_columns, ratio
from btrm.prompts import get_prompt
from btrm.scores import Scale

Column = tuple[Floats, Floats]
SUBSET = "subset/"


@dataclass(frozen=True, slots=True)
class Measuring:
    """The settings of a measurement. `uncertain`: bounds in score units, None: the scale's usual ones."""

    bt_temp: float
    unparsed: UnparsedAs
    folds: int
    uncertain: tuple[float | None, float | None]


@dataclass(frozen=True, eq=False)
class Measured:
    """A cell, how it is measured, and what all metrics are computed from."""

    cell: JudgedCell
    how: Measuring

    @cached_property
    def scale(self) -> Scale:
        """The scale of the cell's prompt."""
        return get_prompt(self.cell.prompt).scale

    @cached_property
    def outcomes(self) -> PairOutcomes:
        """What the judge did with each pair."""
        return self.cell.outcomes(self.how.bt_temp, self.how.unparsed, (self.scale.low, self.scale.high))

    @cached_property
    def fitted(self) -> Fitted:
        """The chances at cross-fitted temperatures."""
        fold_P = folds_of(self.cell.cluster_P, self.cell.pair_id_P, self.how.folds)
        return cross_fit(self.outcomes.counted_P, fold_P)

    @cached_property
    def reliability(self) -> list[ReliabilityBin]:
        """How often the judge is right at each confidence, over the pairs with a score on both sides.

        A pair without one counts as a coin's toss at chance 1/2, which is calibrated whatever the judge is.
        """
        return reliability(self.fitted, self.outcomes)

    @cached_property
    def risk_N(self) -> Floats:
        """The error among the n most confident pairs."""
        return risks(self.outcomes)

    @cached_property
    def more_samples(self) -> MoreSamples:
        """What k answers a side would be worth."""
        scale = (self.scale.low, self.scale.high)
        return more_samples(self.cell.score_P2K, self.cell.asked_P2, self.cell.preferred_P, self.how.unparsed, scale)

    @cached_property
    def official(self) -> list[OfficialScore]:
        """The benchmark's own scores, its headline first."""
        return official_scores(self.cell)

    @cached_property
    def columns(self) -> dict[str, Column]:
        """The metrics that are ratios of sums over pairs; a subset's accuracy is one of them."""
        told_P = ~np.isnan(self.fitted.loss_P)
        fitted = {"fitted_log_loss": self.fitted.loss_P, "brier": self.fitted.brier_P}
        columns = metric_columns(self.outcomes) | self.cell.rates()
        columns |= {name: (np.where(told_P, x, 0.0), told_P.astype(np.float64)) for name, x in fitted.items()}
        top_P, bottom_P = columns["accuracy"]
        return columns | {f"{SUBSET}{name}": (top_P * is_P, bottom_P * is_P) for name, is_P in self._subsets()}

    def _subsets(self) -> Iterator[tuple[str, Floats]]:
        if self.cell.facts is None:
            return
        subset_P = np.array(self.cell.facts.subset_P)
        for name in dict.fromkeys(self.cell.facts.subset_P):
            if name:
                yield name, (subset_P == name).astype(np.float64)

    def value(self, name: str) -> float:
        """Return a ratio of sums; NaN where no pair defines it."""
        top_P, bottom_P = self.columns[name]
        return float(ratio(top_P.sum(), bottom_P.sum()))
