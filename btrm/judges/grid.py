"""The `judge` stage: checkpoint x data set x seed cells, each won part by part, into one judgements.parquet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from btrm.judges.cell_grid import CELLS, ENGINES, CellGrid, Subject, find_pairs, halved, make_grid
from btrm.judges.checkpoints import find_checkpoints
from btrm.judges.devices import check_devices
from btrm.judges.judge_config import JudgeConfig
from btrm.judges.packed import share_packed
from btrm.runs import StageResult, StageRun
from btrm.work import Pool, Unit

__all__ = [
    "ENGINES",
    "JudgeConfig",
    "check_devices",
    "check_judge",
    "halve_batch",
    "run_judge",
    "share_judge",
    "work_judge",
]


def check_judge(config: JudgeConfig, run: StageRun) -> None:
    """Refuse checkpoints and pairs that cannot be what they are said to be."""
    find_checkpoints(run, config.checkpoints, config.base)
    find_pairs(config, run)


def work_judge(config: JudgeConfig, run: StageRun) -> list[Unit]:
    """Return what is missing of each cell, the checkpoints of one model together."""
    return _grid(config, run).missing()


def share_judge(config: JudgeConfig, run: StageRun, units: Sequence[Unit], pool: Pool | None = None) -> Iterator[int]:
    """Judge these rows where they are still missing; yield the number of pairs after each commit.

    Of a pool, rows of other shares that nobody has begun come after the own ones.
    """
    grid = _grid(config, run)
    if config.cells_per_gpu > 1:
        yield from share_packed("judge", config, run, units, pool, grid.left)
    else:
        yield from grid.share(units, pool)


def run_judge(config: JudgeConfig, run: StageRun) -> StageResult:
    """Judge what is missing of each cell, then rebuild judgements.parquet and pairs.parquet.

    Raises ConfigError, before any model is loaded, for checkpoints that cannot be what they are said to be.
    """
    grid = _grid(config, run)
    units = grid.missing()
    asked, rows = grid.finish("judge", units, share_judge(config, run, units))
    results = {
        "checkpoints": list(grid.checkpoints),
        "pairs": sum(pairs.wanted for pairs in grid.sets.by_name.values()),
        "asked_now": asked,
        **grid.results(),
    }
    outputs = {"judgements.parquet": rows, "pairs.parquet": grid.write_pairs(), CELLS: None}
    return StageResult(outputs, results)


def halve_batch(config: JudgeConfig, halvings: int) -> JudgeConfig:
    """Return a config that needs less memory: so often the batch is halved, down to one sequence. Answers stay."""
    return halved(config, halvings)


def _grid(config: JudgeConfig, run: StageRun) -> CellGrid:
    found, prompt = find_checkpoints(run, config.checkpoints, config.base), config.asked_with(config.prompt)
    return make_grid(config, run, [Subject(checkpoint.label, checkpoint, prompt) for checkpoint in found])
