"""The `evaluate` stage: judgements.parquet in, one row of metrics a (checkpoint, data set, seed, prompt) out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Self, cast

from pydantic import model_validator

from btrm.config import ConfigError, extent, setting, source
from btrm.metrics.details import details
from btrm.metrics.eval_log import log_texts
from btrm.metrics.intervals import intervals
from btrm.metrics.judged import read_cells
from btrm.metrics.measured import Measured, Measuring
from btrm.metrics.pairwise import UnparsedAs
from btrm.metrics.scalars import scalars
from btrm.publishing import replace
from btrm.records import write_jsonl
from btrm.runs import StageConfig, StageResult, StageRun

LOGS = "logs"


class EvaluateConfig(StageConfig):
    """How judgements become numbers."""

    judgements: str = source("@judge/judgements.parquet", "the judgements to measure")
    pairs: str | None = source(
        "@judge/pairs.parquet",
        "the pairs that were judged (none: intervals are over pairs instead of contexts, no lengths, no subsets)",
    )
    bt_temp: float = setting(20.0, "temperature of the Bradley-Terry loss", gt=0, published="EVAL_BT_TEMP")
    unc_low: float | None = setting(
        None, "scores from here ... (none: 20 on 0-100, 2 on 1-5)", published="EVAL_UNC_LOW"
    )
    unc_high: float | None = setting(
        None, "... to here count as uncertain (none: 80 on 0-100, 4 on 1-5)", published="EVAL_UNC_HIGH"
    )
    unparsed: UnparsedAs = setting(
        "tie",
        "a pair with a side without a score: wrong, as any answer without a score counts as the one that hurts most; "
        "a tie, half the credit; or left out",
    )
    folds: int = setting(10, "parts of the pairs; the temperature of each is fitted to all others", ge=2)
    n_bootstrap: int = setting(2000, "resamples of the contexts for the 95 % intervals", ge=100)
    seed: int = setting(0, "seed of the resamples")
    report_margins: bool = extent(False, "margins and losses by quantile in the logs")
    report_uncertainty: bool = extent(False, "uncertain scores, their spread and noise in the logs")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.unc_low is not None and self.unc_high is not None and self.unc_low > self.unc_high:
            raise ValueError(f"unc_low {self.unc_low} lies above unc_high {self.unc_high}")
        return self

    def measuring(self) -> Measuring:
        """Return the settings of a cell's measurement."""
        return Measuring(self.bt_temp, self.unparsed, self.folds, (self.unc_low, self.unc_high))


def run_evaluate(config: EvaluateConfig, run: StageRun) -> StageResult:
    """Write eval.jsonl, details.jsonl and logs; raise ConfigError where there is nothing with a label to measure."""
    path = run.input(config.judgements)
    pairs = run.input(config.pairs) if config.pairs is not None else None
    cells = [Measured(cell, config.measuring()) for cell in read_cells(path, pairs) if cell.label_id_P]
    if not cells:
        raise ConfigError(f"{path}: no judgement of a pair with a label")
    found = list(zip(cells, intervals(cells, config.n_bootstrap, config.seed), strict=True))
    rows = [scalars(cell, of_cell) for cell, of_cell in found]
    nested = [details(cell, of_cell) for cell, of_cell in found]
    _publish(run, "eval.jsonl", rows)
    _publish(run, "details.jsonl", nested)
    texts = log_texts(rows, nested, margins=config.report_margins, uncertainty=config.report_uncertainty)
    for name, text in texts.items():
        scratch = run.scratch(name)
        scratch.write_text(text, encoding="utf-8")
        replace(scratch, run.dir / LOGS / name)
    return StageResult({"eval.jsonl": len(rows), "details.jsonl": len(nested), LOGS: None}, {"cells": len(rows)})


def _publish(run: StageRun, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
    scratch = run.scratch(name)
    write_jsonl(scratch, (cast("dict[str, Any]", _json(row)) for row in rows))
    replace(scratch, run.dir / name)


def _json(value: Any) -> Any:
    """Return what is not a finite number as null: JSON has neither NaN nor infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _json(item) for key, item in cast("Mapping[str, Any]", value).items()}
    return [_json(item) for item in cast("list[Any]", value)] if isinstance(value, list) else value
