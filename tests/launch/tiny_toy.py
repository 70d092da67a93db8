"""The toy experiment at its smallest: every stage for real, 8 checkpoints x 6 seeds = 48 cells, about a minute."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from btrm.launch.plan import Experiment, get_experiment
from btrm.runs import Resources

_SETTINGS = (
    "toy_model.steps=40",
    "pairs.n_pairs=train=200,validation=20,test=12",
    "sft.max_steps=6",
    "sft.save_steps=2",
    "grpo.max_steps=12",
    "grpo.save_steps=2",
    "grpo.cpu_processes=1",
    "grpo.per_device_batch_size=32",
    "grpo.generation_batch_size=32",
    "judge.pairs=test=@pairs/test.pairs.parquet",
    "judge.seeds=0,1,2,3,4,5",
    "judge.part_pairs=6",
)


def tiny() -> Experiment:
    """Return the experiment; its judging is shared by six elements."""
    toy = get_experiment("toy.demo").override(_SETTINGS)
    small = Resources(gpus=0, cpus=1, mem_gb=4, time_min=20)
    steps = [replace(s, resources=small, shards=6 if s.stage == "judge" else None) for s in toy.steps]
    return replace(toy, name="tiny", steps=tuple(steps))


def two_nodes() -> Experiment:
    """Return the part up to GRPO, with trainers of 2 nodes x 2 processes."""
    batch = ("grpo.generation_batch_size=64", "grpo.per_device_batch_size=16")
    toy = tiny().override(["sft.cpu_processes=2", "grpo.cpu_processes=2", "sft.max_steps=4", *batch])
    steps = [_on_two_nodes(step) for step in toy.steps if step.stage not in {"judge", "evaluate", "summarize"}]
    return replace(toy, name="two_nodes", steps=tuple(steps))


def _on_two_nodes(step: Any) -> Any:
    if step.stage not in {"sft", "grpo"}:
        return step
    return replace(step, resources=step.resources.model_copy(update={"nodes": 2}))
