"""The `judge` stage: checkpoint x seed cells, each won part by part, into one judgements.parquet."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import cast

from btrm.config import ConfigError
from btrm.judges.ask import Asking
from btrm.judges.cells import Cell
from btrm.judges.checkpoints import Checkpoint, find_checkpoints
from btrm.judges.engine import BATCH_SIZES, EngineSpec, OpenEngine
from btrm.judges.judge_config import JudgeConfig
from btrm.judges.numbered import Pairs, read_labels, read_numbered
from btrm.judges.rebuild import rebuild
from btrm.progress import progress
from btrm.prompts import get_prompt
from btrm.runs import StageResult, StageRun
from btrm.work import Unit

_LOG = logging.getLogger(__name__)
CELLS = "cells"
ENGINES = {
    "transformers": "btrm.judges.transformers:open_transformers",
    "vllm": "btrm.judges.vllm:open_vllm",
}


def check_judge(config: JudgeConfig, run: StageRun) -> None:
    """Refuse checkpoints that cannot be what they are said to be."""
    find_checkpoints(run, config.checkpoints, config.base)


def work_judge(config: JudgeConfig, run: StageRun) -> list[Unit]:
    """Return what is missing of each cell, the checkpoints of one model together."""
    checkpoints = _by_model(find_checkpoints(run, config.checkpoints, config.base))
    cells = [cell for checkpoint in checkpoints for cell in _cells(config, checkpoint)]
    return _pairs(config, run).missing_units(run.dir / CELLS, cells)


def share_judge(config: JudgeConfig, run: StageRun, units: Sequence[Unit]) -> Iterator[int]:
    """Judge these rows where they are still missing; yield the number of pairs after each commit.

    Each model is loaded once, and not at all where nothing is missing.
    """
    checkpoints = {c.label: c for c in _by_model(find_checkpoints(run, config.checkpoints, config.base))}
    cells = (cell for checkpoint in checkpoints.values() for cell in _cells(config, checkpoint))
    pairs = _pairs(config, run)
    todo = pairs.still_missing(run.dir / CELLS, cells, units)
    records = read_numbered(run.input(config.pairs), units)
    asking = Asking(run, run.dir / CELLS, pairs, records, config.pairs_at_once)
    for model, of_model in groupby(todo, key=lambda task: checkpoints[task[0].judge].model):
        tasks = list(of_model)
        group = [checkpoints[label] for label in dict.fromkeys(cell.judge for cell, _ in tasks)]
        with _opener(config.engine)(_spec(config, model, group)) as engine:
            for label, of_label in groupby(tasks, key=lambda task: task[0].judge):
                _LOG.info("judging %s", label)
                engine.select(checkpoints[label].adapter)
                yield from asking.ask(engine, of_label)


def run_judge(config: JudgeConfig, run: StageRun) -> StageResult:
    """Judge what is missing of each checkpoint x seed cell, then rebuild judgements.parquet.

    Raises ConfigError, before any model is loaded, for checkpoints that cannot be what they are said to be.
    """
    units = work_judge(config, run)
    asked = sum(_advance(share_judge(config, run, units), sum(unit.rows for unit in units)))
    pairs, checkpoints = _pairs(config, run), find_checkpoints(run, config.checkpoints, config.base)
    cells = [cell for checkpoint in checkpoints for cell in _cells(config, checkpoint)]
    rows = rebuild(run, run.dir / CELLS, cells, pairs)
    labels = [checkpoint.label for checkpoint in checkpoints]
    results = {"checkpoints": labels, "pairs": pairs.wanted, "seeds": list(config.seeds), "asked_now": asked}
    return StageResult({"judgements.parquet": rows, CELLS: None}, results)


def halve_batch(config: JudgeConfig, halvings: int) -> JudgeConfig:
    """Return a config that needs less memory: so often the batch is halved, down to one sequence. Answers stay."""
    batch_size = config.batch_size or BATCH_SIZES[config.engine]
    return config.model_copy(update={"batch_size": max(batch_size >> halvings, 1)})


def _pairs(config: JudgeConfig, run: StageRun) -> Pairs:
    labels = read_labels(run.input(config.pairs))
    if not labels:
        raise ConfigError(f"{config.pairs}: no pairs to judge")
    return Pairs(labels, min(config.n_pairs or len(labels), len(labels)))


def _by_model(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    models = list(dict.fromkeys(checkpoint.model for checkpoint in checkpoints))
    return sorted(checkpoints, key=lambda checkpoint: models.index(checkpoint.model))


def _cells(config: JudgeConfig, checkpoint: Checkpoint) -> Iterator[Cell]:
    prompt, sampling = get_prompt(config.prompt), config.sampling
    for seed in config.seeds:
        yield Cell(
            name=f"{checkpoint.label}_seed{seed}",
            judge=checkpoint.label,
            model_hash=checkpoint.model_hash,
            adapter_hash=checkpoint.adapter_hash,
            prompt=prompt,
            sampling=sampling,
            n_samples=config.n_samples,
            seed=seed,
        )


def _opener(engine: str) -> OpenEngine:
    module, _, name = ENGINES[engine].partition(":")
    return cast(OpenEngine, getattr(importlib.import_module(module), name))


def _spec(config: JudgeConfig, model: str, group: Sequence[Checkpoint]) -> EngineSpec:
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
    )


def _advance(parts: Iterator[int], total: int) -> Iterator[int]:
    """Show progress in pairs while passing on the number of pairs in each part."""
    for _ in progress((size for size in parts for _ in range(size)), total, "judge", "pair"):
        yield 1
