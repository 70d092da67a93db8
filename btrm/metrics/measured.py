"""One cell measured: its pairs' outcomes, chances and errors, and the scalars of its row in eval.jsonl."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from btrm.metrics.bootstrap import Interval, edge_interval, percentile_interval, resampled_sums
from btrm.metrics.confidence import (
    ReliabilityBin,
    area_under_risk,
    auc_of_margin,
    calibration_error,
    reliability,
    risks,
)
from btrm.metrics.crossfit import Fitted, cross_fit, folds_of
from btrm.metrics.judged import JudgedCell
from btrm.metrics.lengths import length_correlation, longer_wins
from btrm.metrics.more_samples import MoreSamples, aligned_accuracy, more_samples
from btrm.metrics.official import official_scores
from btrm.metrics.official_score import OfficialScore
from btrm.metrics.pairwise import Floats, Ints, PairOutcomes, UnparsedAs, metric_columns, ratio, tails
from btrm.metrics.samples import spread, variance_components
from btrm.prompts import get_prompt
from btrm.scores import Outcome, Scale

Column = tuple[Floats, Floats]
RATES = frozenset({"accuracy", "strict_accuracy"})
WITH_INTERVAL = ("accuracy", "strict_accuracy", "nontie_accuracy", "bt_log_loss", "fitted_log_loss", "brier")
SUBSET = "subset/"
_CELLS_AT_ONCE = 64
_UNCERTAIN = {"score100": (20.0, 80.0), "score5": (2.0, 4.0)}  # other scales: their middle half


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
        """How often the judge is right at each confidence."""
        return reliability(self.fitted, self.outcomes.credit_P)

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
        columns = metric_columns(self.outcomes)
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


def intervals(cells: Sequence[Measured], n_bootstrap: int, seed: int) -> list[dict[str, Interval]]:
    """Return the 95 % intervals of each cell's ratios; whole clusters (pairs of one context) are drawn.

    Cells about the same pairs see the same resamples, so that they are drawn once for many cells. The temperatures are
    those of the whole sample in all resamples: what they add is of order 1 / n.
    """
    alike: dict[bytes, list[int]] = {}
    for number, cell in enumerate(cells):
        alike.setdefault(cell.cell.cluster_P.tobytes(), []).append(number)
    found: dict[int, dict[str, Interval]] = {}
    for numbers in alike.values():
        for start in range(0, len(numbers), _CELLS_AT_ONCE):
            together = numbers[start : start + _CELLS_AT_ONCE]
            found |= zip(together, _intervals([cells[n] for n in together], n_bootstrap, seed), strict=True)
    return [found[number] for number in range(len(cells))]


def _intervals(cells: Sequence[Measured], n_bootstrap: int, seed: int) -> Iterator[dict[str, Interval]]:
    clusters, cluster_P = np.unique(cells[0].cell.cluster_P, return_inverse=True)
    places: dict[bytes, int] = {}
    sums: list[Floats] = []

    def place(column_P: Floats) -> int:
        """Columns that are the same (what is divided by, as a rule) are resampled once."""
        summed: Floats = np.bincount(cluster_P.ravel(), column_P, len(clusters)).astype(np.float64)
        found = places.setdefault(summed.tobytes(), len(sums))
        if found == len(sums):
            sums.append(summed)
        return found

    asked = [
        {name: (place(top_P), place(bottom_P)) for name, (top_P, bottom_P) in _with_interval(cell).items()}
        for cell in cells
    ]
    sums_BM = resampled_sums(np.stack(sums, 1), n_bootstrap, seed)
    for cell, of_cell in zip(cells, asked, strict=True):
        yield {
            name: _interval(name, cell.value(name), sums_BM[:, top], sums_BM[:, bottom], sums[bottom])
            for name, (top, bottom) in of_cell.items()
        }


def _with_interval(cell: Measured) -> dict[str, Column]:
    return {n: column for n, column in cell.columns.items() if n in WITH_INTERVAL or n.startswith(SUBSET)}


def _interval(name: str, value: float, top_B: Floats, bottom_B: Floats, counts: Floats) -> Interval:
    n_drawn = int(np.count_nonzero(counts))
    if value in (0.0, 1.0) and (name in RATES or name.startswith(SUBSET)):
        return edge_interval(value, n_drawn)
    return percentile_interval(ratio(top_B, bottom_B), n_drawn=n_drawn)


def scalars(measured: Measured, found: Mapping[str, Interval]) -> dict[str, Any]:
    """Return a cell's row. Rates and accuracies lie in [0, 1], losses are in nats, NaN is undefined."""
    cell, how, scale = measured.cell, measured.how, measured.scale
    row: dict[str, Any] = {
        "checkpoint": cell.judge,
        "dataset": cell.dataset,
        "seed": cell.seed,
        "prompt": cell.prompt,
        "method": cell.method,
        "n_pairs": len(cell.label_id_P),
        "n_contexts": len(np.unique(cell.cluster_P)),
        "n_label_ties": cell.label_ties,
        "n_judgements": len(cell.outcome_R),
        "n_samples": int(cell.asked_P2.max(initial=0)),
    }
    for name in measured.columns:
        if not name.startswith(SUBSET):
            row[name] = measured.value(name)
        if name in WITH_INTERVAL:
            row |= {f"{name}_low": found[name].low, f"{name}_high": found[name].high}
    return {
        **row,
        "unparsed_rate": cell.unparsed_rate,
        "truncated_rate": float(np.mean(cell.outcome_R == Outcome.TRUNCATED)),
        **{f"rate_{outcome}": float(np.mean(cell.outcome_R == outcome)) for outcome in Outcome},
        **_of_chances(measured),
        **_of_samples(measured),
        **_of_lengths(cell),
        **tails(measured.outcomes),
        "official_name": measured.official[0].name if measured.official else None,
        "official_score": measured.official[0].value if measured.official else math.nan,
        "mass": _mean(cell.mass_R[~np.isnan(cell.mass_R)]),
        "bt_temp": how.bt_temp,
        "unparsed": how.unparsed,
        "scale_low": scale.low,
        "scale_high": scale.high,
    }


def _of_chances(measured: Measured) -> dict[str, float]:
    return {
        "fitted_temp": measured.fitted.temperature,
        "log_loss_baseline": math.log(2),
        "ece": calibration_error(measured.reliability),
        "auc_margin": auc_of_margin(measured.outcomes),
        "aurc": area_under_risk(measured.risk_N),
    }


def _of_samples(measured: Measured) -> dict[str, float | int]:
    cell, curves = measured.cell, measured.more_samples
    score_N, use, parts = cell.scored_N, spread(cell.scored_N), variance_components(cell.score_P2K)
    low, high = uncertain_range(measured)
    return {
        "allpairs_accuracy": curves.mean_at[0].accuracy if curves.mean_at else math.nan,
        "aligned_accuracy": aligned_accuracy(cell.score_P2K, cell.preferred_P),
        "score_mean": _mean(score_N),
        "score_std": float(score_N.std(ddof=1)) if len(score_N) > 1 else math.nan,
        "score_entropy": use.entropy,
        "score_support": use.support,
        "within_variance": parts.within,
        "between_variance": parts.between,
        "intraclass_correlation": parts.intraclass,
        "uncertain_rate": _mean(((score_N >= low) & (score_N <= high)).astype(np.float64)),
    }


def uncertain_range(measured: Measured) -> tuple[float, float]:
    """Return the scores that count as uncertain, both ends included."""
    low, high = measured.how.uncertain
    quarter = (measured.scale.high - measured.scale.low) / 4
    usual = _UNCERTAIN.get(measured.scale.name, (measured.scale.low + quarter, measured.scale.high - quarter))
    return usual[0] if low is None else low, usual[1] if high is None else high


def _of_lengths(cell: JudgedCell) -> dict[str, float]:
    if cell.facts is None:
        return {"length_correlation": math.nan, "longer_wins": math.nan}
    length_P2: Ints = cell.facts.length_P2
    return {
        "length_correlation": length_correlation(cell.sides.means(), length_P2),
        "longer_wins": longer_wins(length_P2, cell.preferred_P),
    }


def _mean(value_N: Floats) -> float:
    return float(value_N.mean()) if len(value_N) else math.nan
