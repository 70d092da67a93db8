"""The `variance` stage: several prompts on one model, many answers a side, to choose a prompt before training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from btrm.judges.cell_grid import CELLS, CellGrid, Subject, find_pairs, halved, make_grid
from btrm.judges.checkpoints import find_checkpoints
from btrm.judges.devices import check_devices
from btrm.judges.packed import share_packed
from btrm.judges.variance_config import VarianceConfig, cell_label
from btrm.judges.variance_text import Board, variance_text, write_table
from btrm.metrics.judged import read_cells
from btrm.metrics.prompt_choice import PromptFigures, contrasts, prompt_histogram, prompt_row
from btrm.metrics.variance import Answers
from btrm.prompts import PromptSpec
from btrm.publishing import replace
from btrm.runs import StageResult, StageRun
from btrm.work import Pool, Unit

__all__ = [
    "VarianceConfig",
    "check_devices",
    "check_variance",
    "halve_batch",
    "run_variance",
    "share_variance",
    "work_variance",
]
_LABEL = "model"


def check_variance(config: VarianceConfig, run: StageRun) -> None:
    """Refuse a model and pairs that cannot be what they are said to be."""
    find_checkpoints(run, {_LABEL: config.model}, config.base)
    find_pairs(config, run)


def work_variance(config: VarianceConfig, run: StageRun) -> list[Unit]:
    """Return what is missing of each cell."""
    return _grid(config, run).missing()


def share_variance(
    config: VarianceConfig, run: StageRun, units: Sequence[Unit], pool: Pool | None = None
) -> Iterator[int]:
    """Judge these rows where they are still missing; yield the number of pairs after each commit.

    Of a pool, rows of other shares that nobody has begun come after the own ones.
    """
    grid = _grid(config, run)
    if config.cells_per_gpu > 1:
        yield from share_packed("variance", config, run, units, pool, grid.left)
    else:
        yield from grid.share(units, pool)


def run_variance(config: VarianceConfig, run: StageRun) -> StageResult:
    """Judge what is missing, then write the tables that compare the prompts."""
    grid = _grid(config, run)
    units = grid.missing()
    asked, rows = grid.finish("variance", units, share_variance(config, run, units))
    outputs: dict[str, int | None] = {"judgements.parquet": rows, "pairs.parquet": grid.write_pairs(), CELLS: None}
    boards = read_boards(config, run.dir / "judgements.parquet", run.dir / "pairs.parquet")
    outputs |= _publish(run, boards)
    choices = {board.dataset: board.choice for board in boards}
    results = {"prompts": [spec.name for spec in config.specs], "asked_now": asked, "choice": choices, **grid.results()}
    return StageResult(outputs, results)


def read_boards(config: VarianceConfig, judgements: Path, pairs: Path) -> list[Board]:
    """Return the figures of each data set's prompts, from the judgements alone."""
    cells = read_cells(judgements, pairs)
    return [
        _board(
            config,
            dataset,
            {
                spec.name: (
                    spec,
                    Answers.of([cell for cell in cells if (cell.dataset, cell.prompt) == (dataset, spec.name)]),
                )
                for spec in config.specs
            },
        )
        for dataset in config.pairs
    ]


def _board(config: VarianceConfig, dataset: str, asked: dict[str, tuple[PromptSpec, Answers]]) -> Board:
    draws = config.n_bootstrap, config.bootstrap_seed
    figures = {
        n: PromptFigures(n, spec.scale, config.zone(spec), config.ranges(spec)) for n, (spec, _) in asked.items()
    }
    return Board(
        dataset=dataset,
        rows=[prompt_row(figures[name], answers, *draws) for name, (_, answers) in asked.items()],
        histograms={name: prompt_histogram(figures[name], answers) for name, (_, answers) in asked.items()},
        contrasts=contrasts({name: answers for name, (_, answers) in asked.items()}, *draws),
    )


def _publish(run: StageRun, boards: Sequence[Board]) -> dict[str, int | None]:
    """Write the tables whole or not at all; return their numbers of rows."""
    tables: dict[str, list[dict[str, Any]]] = {
        "variance.csv": [row for board in boards for row in board.records()],
        "comparisons.csv": [row for board in boards for row in board.compared()],
        "histograms.csv": [row for board in boards for row in board.counted()],
    }
    for name, records in tables.items():
        scratch = run.scratch(name)
        write_table(scratch, records)
        replace(scratch, run.dir / name)
    scratch = run.scratch("variance.md")
    scratch.write_text(variance_text(boards), encoding="utf-8")
    replace(scratch, run.dir / "variance.md")
    return {**{name: len(records) for name, records in tables.items()}, "variance.md": None}


def halve_batch(config: VarianceConfig, halvings: int) -> VarianceConfig:
    """Return a config that needs less memory: so often the batch is halved, down to one sequence. Answers stay."""
    return halved(config, halvings)


def _grid(config: VarianceConfig, run: StageRun) -> CellGrid:
    (checkpoint,) = find_checkpoints(run, {_LABEL: config.model}, config.base)
    return make_grid(config, run, [Subject(cell_label(spec), checkpoint, spec) for spec in config.specs])
