"""The grpo stage: a generative reward model learns from pairs, through ms-swift. Also the trainer's entry point."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator

from btrm.checkpoints import step_of
from btrm.config import ConfigError, extent, runtime, setting, source
from btrm.data.rows import validate_rows
from btrm.prompts import get_prompt
from btrm.rewards.config import RewardConfig
from btrm.runs import StageResult, StageRun, read_manifest
from btrm.train.attempt import leaving_nothing
from btrm.train.options import (
    TrainerConfig,
    Training,
    check_devices,
    check_resume,
    checkpoint_dir,
    common_options,
    read_order,
    refuse_adapter,
    train,
    world_size,
)
from btrm.train.pair_sampler import BatchPlan
from btrm.train.rank import rank
from btrm.train.row_lengths import fitting_rows
from btrm.train.serve import check_vllm, servers, trainer_options
from btrm.train.swift_options import GRPO_OWNED, Options, check_passthrough

# With transformers as the sampler, ms-swift turns "no top_k" into transformers' default of 50.
_ALL_TOKENS = 1_000_000


class GrpoConfig(TrainerConfig):
    """How a judge is trained on pairs; defaults as published."""

    model: str = source("@merge/model", "model to start from", published="MODEL")
    rows: str = source("@pairs/train.rows.jsonl", "rows of pairs, side 0 then side 1")
    reward: RewardConfig = RewardConfig()
    sampler: Literal["pair", "stock"] = setting(
        "pair", "pair: whole pairs, each once an epoch; stock: the trainer's own, which parts pairs (a control)"
    )
    tuner: Literal["lora", "full"] = setting("lora", "train an adapter or all weights")
    num_generations: int = setting(8, "K, completions a side", published="NUM_GENERATIONS", ge=2)
    generation_batch_size: int = setting(128, "completions sampled at once, over all processes", ge=4)
    num_iterations: int = setting(1, "optimizer passes over one generation batch", ge=1)
    learning_rate: float = setting(5e-6, "peak learning rate", published="LEARNING_RATE", gt=0)
    max_steps: int = extent(8000, "optimizer steps", published="MAX_STEPS", ge=1)
    save_steps: int = runtime(200, "keep a checkpoint every so many steps to come", published="SAVE_STEPS", ge=1)
    temperature: float = setting(0.7, "sampling temperature", published="TEMPERATURE", gt=0)
    top_p: float = setting(0.9, "nucleus sampling", gt=0, le=1)
    top_k: int = setting(50, "sample among so many tokens; -1: all")
    max_completion_length: int = setting(128, "new tokens a completion", published="MAX_COMPLETION_LENGTH", ge=1)
    beta: float = setting(0.0, "weight of the KL to the starting model", ge=0)
    scale_rewards: Literal["group", "batch", "none"] = setting("group", "what advantages are divided by")
    dynamic_sample: bool = setting(True, "replace pairs whose completions all earn the same")
    max_resample: int = setting(3, "how often to try", ge=1)
    reward_std_floor: float = setting(
        0.0, "a group's std counts as at least this when advantages are scaled", published="min_reward_std", ge=0
    )
    min_group_std: float = setting(0.0, "groups with a smaller reward std are left out (advantage 0)", ge=0)
    use_vllm: bool = setting(False, "sample with vLLM, not with transformers")
    vllm_mode: Literal["colocate", "server"] = runtime(
        "colocate", "where vLLM runs: on the trainer's GPUs, or on nodes of its own"
    )
    vllm_server_nodes: int = runtime(1, "vllm_mode=server: the last so many of the job's nodes serve", ge=1)
    vllm_tensor_parallel: int = runtime(1, "GPUs that a copy of vLLM's model is split over", ge=1)
    vllm_gpu_memory_utilization: float = runtime(0.9, "share of a GPU's memory that vLLM takes", gt=0, le=1)
    log_completions: bool = runtime(True, "write every logged step's completions to completions.jsonl")

    @property
    def server_nodes(self) -> int:
        """The nodes that serve, at the end of a job's nodes."""
        return self.vllm_server_nodes if self.use_vllm and self.vllm_mode == "server" else 0

    @model_validator(mode="after")
    def _floor_has_a_std(self) -> Self:
        if self.reward_std_floor > 0 and self.scale_rewards != "group":
            raise ValueError(
                f"reward_std_floor={self.reward_std_floor} needs scale_rewards=group, got {self.scale_rewards}"
            )
        return self


def check_grpo(config: GrpoConfig, run: StageRun) -> None:
    """Refuse what can be refused before any GPU is asked for: batch sizes, ms-swift options, model, rows."""
    check_grpo_settings(config, run)
    check_resume(config, run, config.max_steps)
    refuse_adapter(run.model(config.model))
    _check_parser(config, run)
    validate_rows(run.input(config.rows))


def check_grpo_settings(config: GrpoConfig, run: StageRun) -> None:
    """Refuse what the settings and the resources alone tell, before there are any inputs."""
    check_devices(config, run)
    check_vllm(config, run)
    batch_plan(config, world_size(config, run))
    check_passthrough(config.swift, GRPO_OWNED)


def _check_parser(config: GrpoConfig, run: StageRun) -> None:
    """Refuse a reward that reads answers otherwise than the rows' prompt asks for them; rows by path do not say."""
    stage, _, _ = config.rows.removeprefix("@").partition("/")
    manifest = read_manifest(run.paths.stage(stage)) if config.rows.startswith("@") else None
    prompt = manifest.results.get("prompt") if manifest is not None else None
    if prompt is None:
        return
    wanted = get_prompt(str(prompt)).parser.name
    if config.reward.parser != wanted:
        raise ConfigError(
            f"reward.parser {config.reward.parser}: the rows of {config.rows} were written for prompt {prompt}, "
            f"read by {wanted}"
        )


def run_grpo(config: GrpoConfig, run: StageRun) -> StageResult:
    """Train (or resume) and leave `checkpoints/checkpoint-N`."""
    plan = batch_plan(config, world_size(config, run))
    with leaving_nothing(run):
        rows, report = fitting_rows(run, config.rows, run.model(config.model), config.max_length, group=2)
        n_pairs = report["rows"] // 2
        with _users_error():
            plan.check_pairs(n_pairs)
        options = grpo_options(config, run, rows, plan)
        training = Training("btrm.train.grpo", options, config.max_steps, partial(servers, config, run))
        done = train(config, run, training)
    names = [f"{checkpoint_dir(run).name}/{path.name}" for path in done]
    results = {"pairs": n_pairs, "too_long": report["too_long"] // 2, "steps": step_of(done[-1]) if done else 0}
    return StageResult({**dict.fromkeys(names), "checkpoints/logging.jsonl": None}, results)


def batch_plan(config: GrpoConfig, processes: int) -> BatchPlan:
    """Return how completions are dealt; raise ConfigError where a process would not hold whole pairs."""
    with _users_error():
        return BatchPlan.build(
            config.generation_batch_size,
            processes,
            config.per_device_batch_size,
            config.num_generations,
            config.num_iterations,
        )


@contextlib.contextmanager
def _users_error() -> Generator[None]:
    """Make ConfigErrors of the sampler's errors; its module is ms-swift's as well, and knows none."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(str(error)) from None


def grpo_options(config: GrpoConfig, run: StageRun, rows: Path, plan: BatchPlan) -> Options:
    """Return ms-swift's options for this run."""
    return common_options(config, run, rows, config.save_steps) | {
        "rlhf_type": "grpo",
        "tuner_type": config.tuner,
        "truncation_strategy": "left",  # never acts: rows that are too long are gone
        "dataset_shuffle": config.sampler == "stock",
        "reward_funcs": ["btrm_reward", "btrm_weight"],
        "reward_weights": ["1", "0"],  # the weight rides along as a second column
        "num_generations": config.num_generations,
        "steps_per_generation": plan.steps_per_generation,
        "num_iterations": config.num_iterations,
        "max_steps": config.max_steps,
        "temperature": config.temperature,
        "top_p": config.top_p,
        "top_k": config.top_k if config.top_k > 0 or config.use_vllm else _ALL_TOKENS,
        "max_completion_length": config.max_completion_length,
        "beta": config.beta,
        "scale_rewards": config.scale_rewards,
        "dynamic_sample": config.dynamic_sample,
        "max_resample_times": config.max_resample,
        "log_completions": config.log_completions,
        "use_vllm": config.use_vllm,
        **(trainer_options(config) if config.use_vllm else {}),
    }


if __name__ == "__main__":
    with rank():
        from btrm.train.swift_grpo import train_grpo

        train_grpo(read_order(Path(sys.argv[1])))
