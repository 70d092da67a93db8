"""The scalars of a cell: its row in eval.jsonl."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from btrm.metrics.bootstrap import Interval
from btrm.metrics.coin import COINS
from btrm.metrics.confidence import area_under_risk, auc_interval, auc_of_margin, calibration_error
from btrm.metrics.intervals import WITH_INTERVAL
from btrm.metrics.judged import JudgedCell
from btrm.metrics.lengths import length_correlation, longer_wins
from btrm.metrics.measured import SUBSET, Measured
from btrm.metrics.more_samples import aligned_accuracy
from btrm.metrics.pairwise import Floats, UnparsedAs, tails
from btrm.metrics.samples import Components, spread, variance_components
from btrm.scores import Outcome

_UNCERTAIN = {"score100": (20.0, 80.0), "score5": (2.0, 4.0)}  # other scales: their middle half


def scalars(measured: Measured, found: Mapping[str, Interval]) -> dict[str, Any]:
    """Return a cell's row. Rates and accuracies lie in [0, 1], losses are in nats, NaN is undefined.

    A fitted temperature is infinite where margins tell nothing: in eval.jsonl that is null, and the loss there ln 2.
    """
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
        "n_half_judged": int(np.sum((cell.asked_P2 == 0).any(1))),
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
        **_by_convention(measured),
        **{f"rate_{outcome}": float(np.mean(cell.outcome_R == outcome)) for outcome in Outcome},
        **_of_chances(measured),
        **_of_samples(measured),
        **_of_lengths(cell),
        **tails(measured.outcomes),
        "official_name": measured.official[0].name if measured.official else None,
        "official_score": measured.official[0].value if measured.official else math.nan,
        "official_low": measured.official[0].low if measured.official else math.nan,
        "official_high": measured.official[0].high if measured.official else math.nan,
        "mass": _mean(cell.mass_R[~np.isnan(cell.mass_R)]),
        "bt_temp": how.bt_temp,
        "unparsed": how.unparsed,
        "scale_low": scale.low,
        "scale_high": scale.high,
    }


def _by_convention(measured: Measured) -> dict[str, float]:
    """Return the accuracy under each way to count pairs without a score: how much hangs on the choice."""
    ends = (measured.scale.low, measured.scale.high)
    ways: tuple[UnparsedAs, ...] = ("wrong", "tie", "drop")
    outcomes = {way: measured.cell.outcomes(measured.how.bt_temp, way, ends) for way in ways}
    return {f"accuracy_unparsed_{way}": _mean(found.credit_P[found.kept_P]) for way, found in outcomes.items()}


def _of_chances(measured: Measured) -> dict[str, float]:
    auc = auc_interval(measured.outcomes, measured.cell.cluster_P)
    return {
        "fitted_temp": measured.fitted.temperature,
        "log_loss_baseline": COINS["fitted_log_loss"],
        "ece": calibration_error(measured.reliability),
        "auc_margin": auc_of_margin(measured.outcomes),
        "auc_margin_low": auc.low,
        "auc_margin_high": auc.high,
        "aurc": area_under_risk(measured.risk_N),
    }


def _of_samples(measured: Measured) -> dict[str, float | int]:
    cell, curves = measured.cell, measured.more_samples
    score_N, use = cell.scored_N, spread(cell.scored_N)
    parts = variance_components(cell.score_P2K) if cell.is_repeated else Components(math.nan, math.nan)
    in_use = cell.method != "expected"  # expected scores are as many values as there are responses
    low, high = uncertain_range(measured)
    return {
        "allpairs_accuracy": curves.mean_at[0].accuracy if curves.mean_at else math.nan,
        "aligned_accuracy": aligned_accuracy(cell.score_P2K, cell.asked_P2, cell.preferred_P, measured.how.unparsed),
        "score_mean": _mean(score_N),
        "score_std": float(score_N.std(ddof=1)) if len(score_N) > 1 else math.nan,
        "score_entropy": use.entropy if in_use else math.nan,
        "score_support": use.support if in_use else math.nan,
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
    return {
        "length_correlation": length_correlation(cell.sides.means(), cell.facts.length_P2),
        "longer_wins": longer_wins(cell.facts.length_P2, cell.preferred_P),
    }


def _mean(value_N: Floats) -> float:
    return float(value_N.mean()) if len(value_N) else math.nan
