"""The `summarize` stage: eval.jsonl and judgements in; tables, a learning curve and report.html out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from btrm.config import ConfigError, extent, nearest, setting, source
from btrm.metrics.judged import read_cells
from btrm.publishing import replace as publish
from btrm.records import read_jsonl
from btrm.report.best import Best, as_json, best, sentence
from btrm.report.boards import Board, board_rows, read_boards
from btrm.report.columns import as_records, check_columns, sort_records
from btrm.report.comparisons import Compared, Told, compare_boards, comparisons_text
from btrm.report.curve import draw_curve
from btrm.report.html import write_report
from btrm.report.report_input import ReportInput, WorstPair
from btrm.report.rows import SummaryRow, absent_data_set, judge_names
from btrm.report.selection import choose_data_set, choose_judge, mark
from btrm.report.tables import COMPARED, summary_text, write_long, write_records
from btrm.report.wandb_log import Logged, log_summary
from btrm.report.worst import worst_pairs
from btrm.runs import StageConfig, StageResult, StageRun

_WORST = 8  # pairs of each kind of trouble in the report
_NO_CHOICE = "No checkpoint is called the best: --select-on NAME tells the data set to select on."


class SummarizeConfig(StageConfig):
    """What to bring together, what to compare with, and what to show."""

    eval: str = source("@evaluate/eval.jsonl", "the metrics of each checkpoint and seed")
    details: str | None = source("@evaluate/details.jsonl", "curves and histograms of each cell for report.html")
    judgements: str = source("@judge/judgements.parquet", "the judgements that they were computed from")
    pairs: str | None = source(
        "@judge/pairs.parquet", "the pairs that were judged (none: intervals are over pairs instead of contexts)"
    )
    baseline: str | None = setting(None, "compare accuracies with this checkpoint's (none: sft, else base)")
    select_on: str | None = setting(
        None, "select the best checkpoint on this data set (none: one called validation, else the only one)", later=True
    )
    n_bootstrap: int = setting(10_000, "resamples of the pairs for the 95 % intervals", ge=100)
    seed: int = setting(0, "seed of the resamples")
    columns: tuple[str, ...] = extent((), "columns that people see, in this order (none: the usual ones)")
    sort: str | None = extent(None, "order rows by this column, --sort=-accuracy from the top (none: as training went)")


@dataclass(frozen=True, slots=True)
class Summary:
    """All that is told of a run."""

    evals: list[dict[str, Any]]
    rows: list[SummaryRow]
    comparisons: list[Compared]
    best: Best | None


def run_summarize(config: SummarizeConfig, run: StageRun) -> StageResult:
    """Write the summary, and a copy of it into the run's own directory, where people look."""
    check_columns([*config.columns, *([config.sort.removeprefix("-")] if config.sort else [])], "columns, sort:")
    summary = summarize(config, run)
    records = sort_records(as_records(summary.rows), config.sort)
    outputs = _publish(config, run, summary, records)
    logged = log_summary(_logged(run, summary, records))
    for name in outputs:
        _write(run, name, lambda path, name=name: shutil.copyfile(run.dir / name, path), run.paths.root)
    told = {"best": sentence(summary.best), "selected": as_json(summary.best)} if summary.best else {}
    return StageResult(outputs, {"checkpoints": len(summary.rows), "wandb": logged, **told})


def summarize(config: SummarizeConfig, run: StageRun) -> Summary:
    """Read a run's cells and compare its checkpoints; raise ConfigError for a name that is not there."""
    evals = [row for _, row in read_jsonl(run.input(config.eval))]
    if not evals:
        raise ConfigError(f"{config.eval}: no rows to summarize")
    names = {str(row["checkpoint"]) for row in evals}
    if config.baseline is not None and config.baseline not in names:
        raise ConfigError(f"baseline {config.baseline!r}: no such checkpoint{nearest(config.baseline, names)}")
    selected_on = choose_data_set(sorted({str(row["dataset"]) for row in evals}), config.select_on)
    pairs = run.input(config.pairs) if config.pairs is not None else None
    boards = read_boards(evals, read_cells(run.input(config.judgements), pairs))
    selected = next((choose_judge(board) for board in boards if board.dataset == selected_on), None)
    told = compare_boards(boards, config.baseline, selected, config.n_bootstrap, config.seed, selected_on)
    rows = [replace(row, selected=mark(row, selected, selected_on)) for row in _rows(boards, told)]
    return Summary(evals, rows, told.comparisons, best(rows, told.comparisons, selected_on) if selected_on else None)


def _rows(boards: Sequence[Board], told: Told) -> list[SummaryRow]:
    """Return the rows of all boards, compared, with the data sets that a judge lacks named."""
    to_baseline = {(c.dataset, c.a): c for c in told.comparisons if c.kind == "baseline"}
    found: list[SummaryRow] = []
    for board in boards:
        for row in board_rows(board, told.accuracies[board.dataset]):
            lacking = tuple(absent_data_set(other.dataset) for other in boards if row.key not in other.evals)
            row = replace(row, missing=(*row.missing, *lacking), strict=told.strict[board.dataset][row.key])
            if (compared := to_baseline.get((board.dataset, row.key))) is not None:
                row = replace(row, baseline=compared.name_b, comparison=compared.result)
            found.append(row)
    return found


def _publish(
    config: SummarizeConfig, run: StageRun, summary: Summary, records: list[dict[str, Any]]
) -> dict[str, int | None]:
    title, said = run.paths.root.name, [sentence(summary.best) if summary.best else _NO_CHOICE]
    compared = [comparison.record() for comparison in summary.comparisons]
    text = summary_text(title, records, config.columns, said if len(records) > 1 else [])
    text += f"\n{comparisons_text(summary.comparisons)}"
    tables = _report_input(config, run, summary, records, compared)
    counts: dict[str, int | None] = {"summary.csv": len(records), "comparisons.csv": len(compared)}
    _write(run, "summary.csv", lambda path: write_records(path, records))
    _write(run, "comparisons.csv", lambda path: write_records(path, compared, COMPARED))
    _write(run, "summary_long.csv", lambda path: write_long(path, {"": summary.evals}))
    _write(run, "summary.md", lambda path: path.write_text(text, encoding="utf-8"))
    _write(run, "learning_curve.png", lambda path: draw_curve(summary.rows, path))
    _write(run, "report.html", lambda path: write_report(path, title, tables))
    return {**counts, "summary_long.csv": None, "summary.md": None, "learning_curve.png": None, "report.html": None}


def _report_input(
    config: SummarizeConfig,
    run: StageRun,
    summary: Summary,
    records: list[dict[str, Any]],
    compared: list[dict[str, Any]],
) -> ReportInput:
    details = [row for _, row in read_jsonl(run.input(config.details))] if config.details is not None else []
    chosen = summary.best
    return ReportInput(
        records=records,
        evals=summary.evals,
        details=details,
        comparisons=compared,
        best=sentence(chosen) if chosen else "",
        best_checkpoint=chosen.checkpoint if chosen else None,
        best_dataset=chosen.dataset if chosen else None,
        own_test_set=chosen.own_test_set if chosen else False,
        baseline=next((row.baseline for row in summary.rows if row.baseline), None),
        worst=_worst(config, run, summary),
        columns=config.columns,
        notes=[
            f"Intervals of accuracies and of their differences: {config.n_bootstrap:,} resamples, seed {config.seed}.",
            *([] if chosen or len(records) < 2 else [_NO_CHOICE]),
        ],
    )


def _worst(config: SummarizeConfig, run: StageRun, summary: Summary) -> list[WorstPair]:
    """Return pairs to read: of the best checkpoint, or of the last where none is called that, on each data set."""
    pairs = run.input(config.pairs) if config.pairs is not None else None
    names = judge_names(row.key for row in summary.rows)
    wanted = summary.best.checkpoint if summary.best else None
    rows = {row.dataset: row for row in summary.rows if wanted is None or names[row.key] == wanted}
    each = max(2, _WORST // max(len(rows), 1))
    judgements = run.input(config.judgements)
    return [
        replace(pair, checkpoint=names[row.key])
        for row in rows.values()
        for pair in worst_pairs(judgements, pairs, row.key, row.dataset, each)
    ]


def _logged(run: StageRun, summary: Summary, records: list[dict[str, Any]]) -> Logged:
    return Logged(
        run=run.paths.root.name,
        records=records,
        files=run.dir,
        best=sentence(summary.best) if summary.best else "",
        judgements=run.paths.stage("judge") / "manifest.json",
    )


def _write(run: StageRun, name: str, write: Callable[[Path], object], where: Path | None = None) -> None:
    """Publish one output by one rename, into the stage's directory or elsewhere."""
    scratch = run.scratch(name)
    write(scratch)
    publish(scratch, (where or run.dir) / name)
