"""The `evaluate` stage: judgements.parquet in, one row of metrics a (checkpoint, data set, seed) out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from pydantic import model_validator

from btrm.config import ConfigError, setting, source
from btrm.metrics.bootstrap import percentile_interval, resampled_sums
from btrm.metrics.judged import JudgedCell, read_cells
from btrm.metrics.pairwise import PairOutcomes, UnparsedAs, margin_quantiles, metric_columns, metrics, ratio
from btrm.prompts import get_prompt
from btrm.records import write_jsonl
from btrm.runs import StageConfig, StageResult, StageRun, replace
from btrm.scores import Outcome

_WITH_INTERVAL = ("accuracy", "nontie_accuracy", "bt_log_loss")


class EvaluateConfig(StageConfig):
    """How judgements become numbers."""

    judgements: str = source("@judge/judgements.parquet", "the judgements to measure")
    pairs: str | None = source(
        "@judge/pairs.parquet",
        "the pairs that were judged (none: intervals are over pairs instead of contexts, no lengths, no subsets)",
    )
    bt_temp: float = setting(20.0, "temperature of the Bradley-Terry loss", gt=0, published="EVAL_BT_TEMP")
    unc_low: float = setting(20.0, "scores from here ...", published="EVAL_UNC_LOW")
    unc_high: float = setting(80.0, "... to here count as uncertain", published="EVAL_UNC_HIGH")
    unparsed: UnparsedAs = setting(
        "tie",
        "a pair with a side without a score: half the credit; no credit, and any answer without a score counts as the "
        "one that hurts most; or the pair left out",
    )
    n_bootstrap: int = setting(2000, "resamples of the pairs for the 95 % intervals", ge=100)
    seed: int = setting(0, "seed of the resamples")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.unc_low > self.unc_high:
            raise ValueError(f"unc_low {self.unc_low} lies above unc_high {self.unc_high}")
        return self


def run_evaluate(config: EvaluateConfig, run: StageRun) -> StageResult:
    """Write eval.jsonl; raise ConfigError where there is nothing with a label to measure."""
    path = run.input(config.judgements)
    pairs = run.input(config.pairs) if config.pairs is not None else None
    cells = [cell for cell in read_cells(path, pairs) if cell.label_id_P]
    if not cells:
        raise ConfigError(f"{path}: no judgement of a pair with a label")
    scratch = run.scratch("eval.jsonl")
    rows = write_jsonl(scratch, ({k: _json(v) for k, v in evaluate_cell(c, config).items()} for c in cells))
    replace(scratch, run.dir / "eval.jsonl")
    return StageResult({"eval.jsonl": rows}, {"cells": rows})


def evaluate_cell(cell: JudgedCell, config: EvaluateConfig) -> dict[str, Any]:
    """Return all metrics of a cell. Rates and accuracies lie in [0, 1], losses are in nats, NaN is undefined."""
    scale = get_prompt(cell.prompt).scale
    outcomes = cell.outcomes(config.bt_temp, config.unparsed, (scale.low, scale.high))
    scored = cell.scored_N
    uncertain = (scored >= config.unc_low) & (scored <= config.unc_high)
    return {
        "checkpoint": cell.judge,
        "dataset": cell.dataset,
        "seed": cell.seed,
        "prompt": cell.prompt,
        "method": cell.method,
        "n_pairs": len(cell.label_id_P),
        "n_label_ties": cell.label_ties,
        "n_judgements": len(cell.outcome_R),
        **metrics(outcomes),
        **_intervals(cell, outcomes, config),
        "unparsed_rate": cell.unparsed_rate,
        **{f"rate_{outcome}": float(np.mean(cell.outcome_R == outcome)) for outcome in Outcome},
        "uncertain_rate": float(uncertain.mean()) if len(scored) else math.nan,
        "score_mean": float(scored.mean()) if len(scored) else math.nan,
        "score_std": float(scored.std(ddof=1)) if len(scored) > 1 else math.nan,
        **margin_quantiles(outcomes),
        "bt_temp": config.bt_temp,
        "unparsed": config.unparsed,
        "scale_low": scale.low,
        "scale_high": scale.high,
    }


def _intervals(cell: JudgedCell, outcomes: PairOutcomes, config: EvaluateConfig) -> dict[str, float]:
    return dict(_interval_items(cell, outcomes, config))


def _interval_items(cell: JudgedCell, outcomes: PairOutcomes, config: EvaluateConfig) -> Iterator[tuple[str, float]]:
    columns = metric_columns(outcomes)
    parts = [part for name in _WITH_INTERVAL for part in columns[name]]
    sums_BM = resampled_sums(
        np.stack(parts, 1), config.n_bootstrap, config.seed, np.unique(cell.cluster_P, return_inverse=True)[1]
    )
    for place, name in enumerate(_WITH_INTERVAL):
        interval = percentile_interval(ratio(sums_BM[:, 2 * place], sums_BM[:, 2 * place + 1]))
        yield f"{name}_low", interval.low
        yield f"{name}_high", interval.high


def _json(value: Any) -> Any:
    """Return NaN as null: JSON has no NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value
