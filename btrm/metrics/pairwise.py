"""Pairwise metrics of one judge's scores. Shapes: P pairs, S samples; side 0 and 1 are columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
UnparsedAs = Literal["wrong", "tie", "drop"]
QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
_UNITS = 10**6  # scores are counted in millionths, as integers: a sum is exact, and equal means are equal floats


@dataclass(frozen=True, slots=True)
class PairOutcomes:
    """What a judge did with each pair, in the pairs' order.

    credit_P: 1 agrees with the label, 0 disagrees, 1/2 a tie; NaN where an unparsed pair is dropped.
    margin_P: the preferred side's score less the other's, what is imputed included; NaN where a side has no score.
    loss_P: Bradley-Terry log-loss in nats; NaN where the pair is dropped.
    counted_P: the margin that the loss goes by: margin_P, or what is assumed where that is missing; NaN where the pair
    is dropped.
    """

    credit_P: Floats
    margin_P: Floats
    loss_P: Floats
    counted_P: Floats

    @property
    def kept_P(self) -> NDArray[np.bool_]:
        """Whether the pair counts at all."""
        return ~np.isnan(self.credit_P)

    @property
    def unparsed_P(self) -> NDArray[np.bool_]:
        """Whether a side of the pair has no score."""
        return np.isnan(self.margin_P)


@dataclass(frozen=True, slots=True)
class SideScores:
    """The answers about each side of each pair, shapes (P, 2).

    units_P2: sum of the scores in millionths; parsed_P2: how many answers hold a score; asked_P2: how many there are.
    """

    units_P2: Ints
    parsed_P2: Ints
    asked_P2: Ints

    def means(self) -> Floats:
        """Return each side's mean over the answers that hold a score; NaN where none does."""
        return exact_quotient(self.units_P2, self.parsed_P2)

    def imputed_means(self, fill_P2: Floats) -> Floats:
        """Return each side's mean over all answers, `fill_P2` for those without a score; NaN where none has one."""
        fill_units_P2 = np.rint(fill_P2 * _UNITS).astype(np.int64)
        units_P2 = self.units_P2 + (self.asked_P2 - self.parsed_P2) * fill_units_P2
        return exact_quotient(units_P2, np.where(self.parsed_P2 > 0, self.asked_P2, 0))


def exact_quotient(units: Ints | Floats, count: Ints | Floats) -> Floats:
    """Return means in score units, from sums in millionths; NaN where there is nothing.

    Both are whole numbers, exact as integers or floats, so that the quotient's rounding depends on its value alone.
    """
    return np.divide(units, count * _UNITS, out=np.full(units.shape, np.nan), where=count > 0)


def side_scores(score_R: Floats, pair_R: Ints, side_R: Ints, n_pairs: int) -> SideScores:
    """Bring R answers together by side of pair; a score of NaN is an answer without one."""
    cell_R = pair_R * 2 + side_R
    parsed_R = ~np.isnan(score_R)

    def total(cell: Ints, weights: Floats | None = None) -> Ints:
        return np.bincount(cell, weights, 2 * n_pairs).astype(np.int64).reshape(n_pairs, 2)

    units = total(cell_R[parsed_R], np.rint(score_R[parsed_R] * _UNITS))
    return SideScores(units, total(cell_R[parsed_R]), total(cell_R))


def sides_of_samples(score_P2K: Floats, asked_P2: Ints) -> SideScores:
    """Bring the samples of each side together; NaN is a sample without a score, or one that was not asked for."""
    return SideScores(in_units(score_P2K).sum(2), (~np.isnan(score_P2K)).sum(2), asked_P2)


def in_units(score_P2K: Floats) -> Ints:
    """Return scores in millionths, 0 for NaN: sums of them are exact."""
    return np.rint(np.nan_to_num(score_P2K) * _UNITS).astype(np.int64)


def pair_outcomes(
    sides: SideScores,
    preferred_P: Ints,
    bt_temp: float,
    unparsed: UnparsedAs = "tie",
    scale: tuple[float, float] = (0.0, 100.0),
) -> PairOutcomes:
    """Compare the sides of each pair by their mean scores.

    loss = log(1 + exp(-margin / bt_temp)) (Bradley and Terry 1952; margins in units of bt_temp). `tie`: a pair with a
    side without any score is a tie, half the credit and a margin of 0 (every pair that was asked about counts:
    intention to treat), and a side with some scores goes by those. `drop` leaves such a pair out, which flatters a
    judge that fails on what is hard. `wrong` counts every answer without a score against the judge: it is taken for
    the one that hurts most, the scale's low end on the preferred side and its high end on the other; a pair with a
    side without any score gets no credit and the loss of the worst margin.
    """
    row_P = np.arange(len(preferred_P))
    low, high = scale
    score_P2 = sides.means()
    if unparsed == "wrong":
        score_P2 = sides.imputed_means(np.where(np.arange(2) == preferred_P[:, None], low, high))
    margin_P = score_P2[row_P, preferred_P] - score_P2[row_P, 1 - preferred_P]
    credit = {"wrong": 0.0, "tie": 0.5, "drop": np.nan}[unparsed]
    assumed = {"wrong": low - high, "tie": 0.0, "drop": np.nan}[unparsed]
    missing_P = np.isnan(margin_P)
    credit_P = np.where(missing_P, credit, 0.5 + 0.5 * np.sign(margin_P))
    counted_P = np.where(missing_P, assumed, margin_P)
    with np.errstate(invalid="ignore"):  # NaN stays NaN: a dropped pair
        loss_P = np.logaddexp(0.0, -counted_P / bt_temp)
    return PairOutcomes(credit_P, margin_P, loss_P, counted_P)


def metric_columns(outcomes: PairOutcomes) -> dict[str, tuple[Floats, Floats]]:
    """Return {metric: (numerator_P, denominator_P)}: each metric is a ratio of sums over pairs.

    So one matrix product gives all of them for all bootstrap resamples. A tie is worth 1/2 in `accuracy`, which is then
    what breaking ties by coin would give, and nothing in `strict_accuracy`; `coverage` is the share of pairs where both
    sides have a score, whatever becomes of the others.
    """
    credit_P, kept_P = outcomes.credit_P, outcomes.kept_P
    tie_P = credit_P == 0.5
    decided_P = kept_P & ~tie_P
    ones_P = np.ones(len(credit_P))
    return {
        "accuracy": (_where(kept_P, credit_P), kept_P.astype(np.float64)),
        "strict_accuracy": ((credit_P == 1).astype(np.float64), kept_P.astype(np.float64)),
        "tie_rate": (tie_P.astype(np.float64), kept_P.astype(np.float64)),
        "nontie_accuracy": (_where(decided_P, credit_P), decided_P.astype(np.float64)),
        "bt_log_loss": (_where(kept_P, outcomes.loss_P), kept_P.astype(np.float64)),
        "nontie_bt_log_loss": (_where(decided_P, outcomes.loss_P), decided_P.astype(np.float64)),
        "coverage": ((~outcomes.unparsed_P).astype(np.float64), ones_P),
        "unparsed_pair_rate": (outcomes.unparsed_P.astype(np.float64), ones_P),
    }


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Return numerator / denominator, NaN where there is nothing to divide by."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)


def metrics(outcomes: PairOutcomes) -> dict[str, float]:
    """Return the value of each metric; NaN where no pair defines it."""
    columns = metric_columns(outcomes)
    return {name: float(ratio(top.sum(), bottom.sum())) for name, (top, bottom) in columns.items()}


def tails(outcomes: PairOutcomes) -> dict[str, float]:
    """Return quantiles, margin_p1 ... loss_p99 (NaN of nothing): where the rare and costly cases lie.

    Of the margin over all scored pairs, over the right and over the wrong ones; of the loss over all pairs that count.
    """
    margin_P, loss_P = outcomes.margin_P[~outcomes.unparsed_P], outcomes.loss_P[outcomes.kept_P]
    groups = {"margin": margin_P, "margin_correct": margin_P[margin_P > 0], "margin_wrong": margin_P[margin_P < 0]}
    found: dict[str, float] = {}
    for name, values in {**groups, "loss": loss_P}.items():
        at = np.quantile(values, QUANTILES) if len(values) else np.full(len(QUANTILES), np.nan)
        found |= {f"{name}_p{round(100 * q)}": float(value) for q, value in zip(QUANTILES, at, strict=True)}
    return found


def _where(mask: NDArray[np.bool_], values: Floats) -> Floats:
    return np.where(mask, values, 0.0)
