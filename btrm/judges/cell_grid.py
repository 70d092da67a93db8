"""The machinery of a grid: its cells, what they lack, asking for it model by model, and the files at the end."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, cast

from btrm.config import ConfigError
from btrm.judges.ask import Asking
from btrm.judges.base import Judge
from btrm.judges.cells import Cell, parts_by_cell
from btrm.judges.checkpoints import Checkpoint
from btrm.judges.chunk_claims import Claims
from btrm.judges.engine import BATCH_SIZES, Engine, EngineSpec, OpenEngine
from btrm.judges.expected import expected_judge
from btrm.judges.grid_config import GridConfig
from btrm.judges.guided import guided_judge
from btrm.judges.made_with import note, read_notes
from btrm.judges.numbered import Pairs, read_labels, read_numbered
from btrm.judges.outcomes import TOO_LONG, count_outcomes
from btrm.judges.packed import one_at_a_time
from btrm.judges.pair_sets import PairSets
from btrm.judges.rebuild import rebuild
from btrm.judges.sharing import Sharing, Todo
from btrm.judges.trials import read_trials, try_first
from btrm.progress import progress
from btrm.prompts import PromptSpec
from btrm.publishing import replace
from btrm.records import PreferencePair, read_pairs, write_pairs
from btrm.runs import StageRun
from btrm.work import Pool, Unit

_LOG = logging.getLogger(__name__)
CELLS = "cells"
C = TypeVar("C", bound=GridConfig)
ENGINES = {
    "transformers": "btrm.judges.transformers:open_transformers",
    "vllm": "btrm.judges.vllm:open_vllm",
}


@dataclass(frozen=True, slots=True)
class Subject:
    """A checkpoint that is asked with one prompt; its cells are called by the label."""

    label: str
    checkpoint: Checkpoint
    prompt: PromptSpec


@dataclass(frozen=True, slots=True)
class CellGrid:
    """Subjects x data sets x seeds: one cell each, won part by part. `checkpoints` are by label."""

    config: GridConfig
    run: StageRun
    checkpoints: Mapping[str, Checkpoint]
    cells: Sequence[Cell]
    sets: PairSets

    @property
    def directory(self) -> Path:
        """Where the cells' parts lie."""
        return self.run.dir / CELLS

    def missing(self) -> list[Unit]:
        """Return what is missing of each cell, the cells of one model together."""
        return self.sets.missing_units(self.directory, self.by_model())

    def left(self, units: Sequence[Unit]) -> int:
        """Return how many rows of these units are still missing."""
        todo = self.sets.still_missing(self.directory, self.by_model(), units)
        return sum(last - first for _, holes in todo for first, last in holes)

    def share(self, units: Sequence[Unit], pool: Pool | None = None) -> Iterator[int]:
        """Judge these rows where they are still missing; yield the number of pairs after each commit.

        Each model is loaded once, and not at all where nothing is missing. Of a pool, rows of other shares that nobody
        has begun come after the own ones.
        """
        with Claims(self.run.dir / ".attempts" / "claims") as claims:
            yield from Sharing(_Shared(self, claims, pool is not None and pool.elements > 1), units, pool).run()

    def finish(self, asked_as: str, units: Sequence[Unit], parts: Iterator[int]) -> tuple[int, int]:
        """Judge these units part by part, then rebuild judgements.parquet; return (pairs asked now, rows in it)."""
        asked = sum(_advance(parts, sum(unit.rows for unit in units), asked_as))
        rows = rebuild(self.run, self.directory, self.cells, self.sets)
        if left_out := self._left_out():
            more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
            told = ", ".join(left_out[:5]) + more
            _LOG.warning("judged before, not named now and so not in judgements.parquet: %s (kept in cells/)", told)
        return asked, rows

    def _left_out(self) -> list[str]:
        """Return the cells that have parts here and are not asked for."""
        mine = {name for cell in self.cells for name in (cell.name, cell.older_name)}
        return sorted(name for name in parts_by_cell(self.directory) if name not in mine)

    def results(self) -> dict[str, Any]:
        """Return what a manifest tells of the answers, and say how many prompts were too long."""
        counts = count_outcomes(self.run.dir / "judgements.parquet")
        notes = read_notes(self.run.dir, [checkpoint.model_hash for checkpoint in self.checkpoints.values()])
        if too_long := counts.get(TOO_LONG):
            share = 100 * too_long / sum(counts.values())
            _LOG.warning("%.2f %% of the prompts leave no room in max_length %s", share, self._max_length(notes))
        return {
            "datasets": {str(name): pairs.wanted for name, pairs in self.sets.by_name.items()},
            "seeds": list(self.config.seeds),
            "outcomes": counts,
            "trials": read_trials(self.run.dir),
            "made_with": notes,
        }

    def _max_length(self, notes: Sequence[Mapping[str, Any]]) -> str:
        asked = self.config.max_length
        taken = min((int(noted["max_length"]) for noted in notes if "max_length" in noted), default=asked)
        return f"{asked}, of which a model takes {taken}" if taken < asked else str(asked)

    def write_pairs(self) -> int:
        """Write pairs.parquet, the pairs that were judged, all data sets after one another; return their number."""
        scratch = self.run.scratch("pairs.parquet")
        files = ((self.run.input(path), self.sets.by_name[name].wanted) for name, path in self.config.pairs.items())
        count = write_pairs(scratch, chain.from_iterable(read_pairs(path, wanted) for path, wanted in files))
        replace(scratch, self.run.dir / "pairs.parquet")
        return count

    def by_model(self) -> list[Cell]:
        """Return the cells, those of one model together."""
        models = list(dict.fromkeys(checkpoint.model for checkpoint in self.checkpoints.values()))
        return sorted(self.cells, key=lambda cell: models.index(self.checkpoints[cell.judge].model))

    def records(self, todo: Todo) -> dict[str | None, dict[int, PreferencePair]]:
        """Return the pairs that rows are about, {data set: {number: pair}}."""
        asked = {name: [holes for cell, holes in todo if cell.dataset == name] for name in self.config.pairs}
        return {
            name: read_numbered(self.run.input(self.config.pairs[name]), holes)
            for name, holes in asked.items()
            if holes
        }


@dataclass(frozen=True, slots=True)
class _Shared:
    """A grid as one element of several sees it. `together`: models have room for all adapters that others may have."""

    grid: CellGrid
    claims: Claims
    together: bool

    def todo(self, units: Sequence[Unit]) -> Todo:
        return self.grid.sets.still_missing(self.grid.directory, self.grid.by_model(), units)

    def asking(self, todo: Todo) -> Asking:
        grid = self.grid
        sizes = grid.config.pairs_a_part, grid.config.pairs_at_once
        return Asking(grid.run, grid.directory, grid.sets, grid.records(todo), *sizes, self.claims)

    def model(self, cell: Cell) -> str:
        return self.grid.checkpoints[cell.judge].model

    @contextmanager
    def open(self, model: str, todo: Todo) -> Generator[Engine]:
        known = self.grid.checkpoints
        labels = known if self.together else dict.fromkeys(cell.judge for cell, _ in todo)
        group = [known[label] for label in labels if known[label].model == model]
        with ExitStack() as opened:
            with one_at_a_time():
                engine = opened.enter_context(open_engine(self.grid.config)(_spec(self.grid.config, model, group)))
            yield engine

    def judge(self, engine: Engine, cell: Cell, asking: Asking) -> Judge:
        grid, checkpoint = self.grid, self.grid.checkpoints[cell.judge]
        note(grid.run, engine, grid.config.engine, checkpoint.model_hash, cell.prompt)
        engine.select(checkpoint.adapter)
        judge = make_judge(grid.config, engine, cell.prompt)
        try_first(grid.run, grid.config, engine, judge, cell, asking.records[cell.dataset])
        return judge


def make_grid(config: GridConfig, run: StageRun, subjects: Sequence[Subject]) -> CellGrid:
    """Return the grid of these subjects, on each data set at each seed.

    Raises ConfigError for a data set without pairs.
    """
    sets = PairSets(find_pairs(config, run))
    cells = [
        _cell(config, subject, dataset, seed)
        for subject in subjects
        for dataset in config.pairs
        for seed in config.seeds
    ]
    checkpoints = {subject.checkpoint.label: subject.checkpoint for subject in subjects}
    return CellGrid(config, run, checkpoints, cells, sets)


def make_judge(config: GridConfig, engine: Engine, prompt: PromptSpec) -> Judge:
    """Return what answers in the way that the config asks for, by what the engine has selected."""
    if config.method == "expected":
        judge: Judge = expected_judge(engine, prompt, config.max_new_tokens, config.min_mass)
    else:
        judge = engine
    return judge if config.guided == "off" else guided_judge(engine, judge, prompt)


def _cell(config: GridConfig, subject: Subject, dataset: str, seed: int) -> Cell:
    return Cell(
        name=f"{subject.label}_seed{seed}@{dataset}",
        judge=subject.checkpoint.label,
        model_hash=subject.checkpoint.model_hash,
        adapter_hash=subject.checkpoint.adapter_hash,
        prompt=subject.prompt,
        sampling=config.sampling,
        n_samples=config.n_samples,
        seed=seed,
        dataset=dataset,
        expected="expected" if config.method == "expected" else None,
    )


def find_pairs(config: GridConfig, run: StageRun) -> dict[str | None, Pairs]:
    """Return the pairs of each data set; raise ConfigError for all that have none."""
    found: dict[str | None, Pairs] = {}
    problems: list[str] = []
    for name, reference in config.pairs.items():
        try:
            found[name] = _pairs(reference, config, run)
        except ConfigError as error:
            problems.append(f"pairs: {name}: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    return found


def _pairs(reference: str, config: GridConfig, run: StageRun) -> Pairs:
    labels = read_labels(run.input(reference))
    if not labels:
        raise ConfigError(f"{reference}: no pairs to judge")
    return Pairs(labels, min(config.n_pairs or len(labels), len(labels)))


def open_engine(config: GridConfig) -> OpenEngine:
    """Return what opens the engine that the config names."""
    module, _, name = ENGINES[config.engine].partition(":")
    return cast(OpenEngine, getattr(importlib.import_module(module), name))


def _spec(config: GridConfig, model: str, group: Sequence[Checkpoint]) -> EngineSpec:
    return EngineSpec(
        model=model,
        adapter_rank=max(checkpoint.adapter_rank for checkpoint in group),
        sampling=config.sampling,
        dtype=config.dtype,
        max_length=config.max_length,
        batch_size=config.batch_size,
        kv_cache_mb=config.kv_cache_mb,
        gpu_memory_utilization=config.gpu_memory_utilization,
        tensor_parallel=config.tensor_parallel,
        batch_invariant=config.batch_invariant,
    )


def halved(config: C, halvings: int) -> C:
    """Return a config that needs less memory: so often the batch is halved, down to one sequence. Answers stay."""
    batch_size = config.batch_size or BATCH_SIZES[config.engine]
    return config.model_copy(update={"batch_size": max(batch_size >> halvings, 1)})


def _advance(parts: Iterator[int], total: int, what: str) -> Iterator[int]:
    """Show progress in pairs while passing on the number of pairs in each part."""
    for _ in progress((size for size in parts for _ in range(size)), total, what, "pair"):
        yield 1
