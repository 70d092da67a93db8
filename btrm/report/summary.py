"""The `summarize` stage: eval.jsonl and judgements in; summary.csv, summary.md and a learning curve out."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from btrm.config import ConfigError, nearest, setting, source
from btrm.metrics.judged import read_cells
from btrm.records import read_jsonl
from btrm.report.columns import COLUMNS, as_records, format_table
from btrm.report.curve import draw_curve
from btrm.report.rows import SummaryRow, summary_rows
from btrm.report.wandb_log import log_summary
from btrm.runs import StageConfig, StageResult, StageRun, replace


class SummarizeConfig(StageConfig):
    """What to bring together, and what to compare with."""

    eval: str = source("@evaluate/eval.jsonl", "the metrics of each checkpoint and seed")
    judgements: str = source("@judge/judgements.parquet", "the judgements that they were computed from")
    baseline: str | None = setting(None, "compare accuracies with this checkpoint's (none: sft, else base)")
    n_bootstrap: int = setting(10_000, "resamples of the pairs for the 95 % intervals", ge=100)
    seed: int = setting(0, "seed of the resamples")


def run_summarize(config: SummarizeConfig, run: StageRun) -> StageResult:
    """Write the summary, and a copy of it into the run's own directory, where people look."""
    evals = [row for _, row in read_jsonl(run.input(config.eval))]
    if not evals:
        raise ConfigError(f"{config.eval}: no rows to summarize")
    names = {str(row["checkpoint"]) for row in evals}
    if config.baseline is not None and config.baseline not in names:
        raise ConfigError(f"baseline {config.baseline!r}: no such checkpoint{nearest(config.baseline, names)}")
    cells = read_cells(run.input(config.judgements))
    rows = summary_rows(evals, cells, config.baseline, config.n_bootstrap, config.seed)
    records = as_records(rows)
    _publish_tables(run, records, evals)
    _publish_text(run, records)
    _publish_curve(run, rows)
    logged = log_summary(run.paths.root.name, records, run.dir / "learning_curve.png")
    outputs = {"summary.csv": len(rows), "summary_long.csv": len(evals), "summary.md": None, "learning_curve.png": None}
    for name in outputs:
        scratch = run.scratch(name)
        shutil.copyfile(run.dir / name, scratch)
        replace(scratch, run.paths.root / name)
    return StageResult(dict(outputs), {"checkpoints": len(rows), "wandb": logged})


def _publish_tables(run: StageRun, records: Sequence[dict[str, Any]], evals: Sequence[dict[str, Any]]) -> None:
    import pandas as pd

    for name, table in (("summary.csv", records), ("summary_long.csv", evals)):
        frame = pd.DataFrame(list(table))
        if name == "summary.csv":
            frame["step"] = frame["step"].astype("Int64")
        scratch = run.scratch(name)
        frame.to_csv(scratch, index=False, float_format="%.6g")
        replace(scratch, run.dir / name)


def _publish_text(run: StageRun, records: Sequence[dict[str, Any]]) -> None:
    scratch = run.scratch("summary.md")
    meanings = "\n".join(f"- `{column.name}`: {column.meaning}" for column in COLUMNS if not column.wide)
    scratch.write_text(f"# {run.paths.root.name}\n\n{format_table(records)}\n\n{meanings}\n", encoding="utf-8")
    replace(scratch, run.dir / "summary.md")


def _publish_curve(run: StageRun, rows: Sequence[SummaryRow]) -> None:
    scratch: Path = run.scratch("learning_curve.png")
    draw_curve(rows, scratch)
    replace(scratch, run.dir / "learning_curve.png")
