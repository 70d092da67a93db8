"""What the trainer stages share: their common fields, the order for a trainer process, and resuming."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from btrm.checkpoints import base_identity, checkpoint_kind, checkpoints, is_whole, step_of
from btrm.config import Config, ConfigError, runtime, setting, source
from btrm.publishing import write_json
from btrm.runs import StageConfig, StageRun
from btrm.train.attempt import ORDER, trainer_log, whole_now
from btrm.train.launch import Job, process_count, run_job
from btrm.train.outputs import attempt_folder, gather
from btrm.train.swift_options import Options, to_argv

CHECKPOINTS = "checkpoints"
_DEEPSPEED = Path(__file__).parent / "deepspeed"


class TrainerConfig(StageConfig):
    """Fields of both trainers."""

    model: str = source("Qwen/Qwen2.5-7B-Instruct", "model to start from", published="MODEL")
    model_type: str | None = setting(None, "ms-swift's model_type, where it cannot tell from the model")
    template: str | None = setting(None, "ms-swift's chat template, where it cannot tell from the model")
    lora_rank: int = setting(16, "rank of the LoRA adapter", ge=1)
    lora_alpha: int = setting(32, "LoRA's alpha", ge=1)
    learning_rate: float = setting(2e-5, "peak learning rate", published="LEARNING_RATE", gt=0)
    lr_scheduler: str = setting("cosine", "learning-rate schedule, by its transformers name")
    warmup_ratio: float = setting(0.05, "share of the steps that warm up", ge=0, le=1)
    per_device_batch_size: int = setting(2, "rows (GRPO: completions) a device and micro-step", ge=1)
    gradient_accumulation: int = setting(1, "micro-steps an optimizer step", ge=1)
    max_length: int = setting(4096, "longest row in tokens; longer ones are dropped and counted", ge=16)
    dtype: Literal["bfloat16", "float16", "float32"] = setting("bfloat16", "number format")
    gradient_checkpointing: bool = setting(True, "recompute activations to save memory")
    seed: int = setting(42, "seed of data order, dropout and sampling", ge=0)
    logging_steps: int = runtime(5, "log every so many steps", published="LOGGING_STEPS", ge=1)
    report_to: Literal["none", "wandb", "tensorboard"] = runtime("none", "where else metrics go")
    cpu_processes: int = setting(1, "processes where there is no GPU", ge=1)
    deepspeed: Literal["none", "zero2", "zero3"] = runtime(
        "none", "split optimizer and gradients (zero2), weights too (zero3), among the GPUs"
    )
    swift: dict[str, str] = setting({}, "any other ms-swift option: key=value")

    @property
    def server_nodes(self) -> int:
        """The nodes that serve, at the end of a job's nodes; the others train."""
        return 0


class Order(Config):
    """What a trainer process is told, and all that it reads: our config and ms-swift's command line."""

    argv: list[str]
    directory: str
    base: str
    config: dict[str, Any]
    world_size: int


def _nothing_beside() -> AbstractContextManager[Options]:
    return nullcontext({})


@dataclass(frozen=True, slots=True)
class Training:
    """A trainer's entry point, ms-swift's options for it and its last step, where that is known.

    `beside` starts what runs beside the trainer, and says what the trainer must be told of it.
    """

    module: str
    options: Options
    steps: int | None
    beside: Callable[[], AbstractContextManager[Options]] = _nothing_beside


def checkpoint_dir(run: StageRun) -> Path:
    """Return where a trainer's checkpoints lie."""
    return run.dir / CHECKPOINTS


def world_size(config: TrainerConfig, run: StageRun) -> int:
    """Return the number of trainer processes over all nodes."""
    return (run.resources.nodes - config.server_nodes) * process_count(run.resources, config.cpu_processes)


def common_options(config: TrainerConfig, run: StageRun, rows: Path, save_steps: int) -> Options:
    """Return the ms-swift options that both trainers set."""
    options: Options = {
        "model": run.model(config.model),
        "use_hf": True,
        "check_model": False,
        "dataset": str(rows),
        "split_dataset_ratio": 0,
        "load_from_cache_file": False,
        "strict": True,
        "output_dir": str(checkpoint_dir(run)),  # below it, in a folder of each attempt's own
        "add_version": False,
        "lora_rank": config.lora_rank,
        "lora_alpha": config.lora_alpha,
        "target_modules": "all-linear",
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": config.lr_scheduler,
        "warmup_ratio": config.warmup_ratio,
        "per_device_train_batch_size": config.per_device_batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation,
        "max_length": config.max_length,
        "torch_dtype": config.dtype,
        "gradient_checkpointing": config.gradient_checkpointing,
        "seed": config.seed,
        "data_seed": config.seed,
        "save_strategy": "steps",
        "save_steps": save_steps,
        "save_only_model": False,
        "eval_strategy": "no",
        "logging_steps": config.logging_steps,
        "report_to": config.report_to,
        "dataloader_num_workers": 0,
    }
    if config.model_type is not None:
        options["model_type"] = config.model_type
    if config.template is not None:
        options["template"] = config.template
    if run.resources.gpus == 0:
        # Without it, CPU processes train alone, on identical rows.
        options |= {"use_cpu": True}
        options["bf16"] = False
    if config.deepspeed != "none":
        options["deepspeed"] = str(_DEEPSPEED / f"{config.deepspeed}.json")
    return options


def train(config: TrainerConfig, run: StageRun, plan: Training) -> list[Path]:
    """Run (or resume) the trainer until it is done; return its whole checkpoints, by step."""
    steps = plan.steps
    folder = checkpoint_dir(run)
    gather(folder)
    done = whole_checkpoints(folder, run.dir / "set_aside")
    if steps is not None and done and step_of(done[-1]) >= steps:
        return done
    options = {**plan.options, "output_dir": str(attempt_folder(folder))}
    if done:
        options["resume_from_checkpoint"] = str(done[-1])
    with plan.beside() as told:
        _run(config, run, replace(plan, options={**options, **told}), step_of(done[-1]) if done else 0)
    gather(folder)
    return whole_checkpoints(folder, run.dir / "set_aside")


def whole_checkpoints(folder: Path, aside: Path) -> list[Path]:
    """Return the finished checkpoints by step; half-written ones go to `aside`, never resumed and never judged."""
    whole: list[Path] = []
    for checkpoint in checkpoints(folder):
        if is_whole(checkpoint):
            whole.append(checkpoint)
        else:
            aside.mkdir(parents=True, exist_ok=True)
            shutil.move(checkpoint, aside / f"{checkpoint.name}-{time.time_ns()}")
    return whole


def check_resume(config: TrainerConfig, run: StageRun, steps: int | None) -> None:
    """Refuse to go on from the last checkpoint with fewer steps, another number of processes, or another optimizer.

    That number is in the optimizer's batch, in which rows a process sees next, and in the files of random states;
    DeepSpeed writes the optimizer's state in a form of its own.
    """
    processes, whole = world_size(config, run), whole_now(run)
    if not whole:
        return
    done = step_of(whole[-1])
    if steps is not None and steps < done:
        raise ConfigError(
            f"max_steps: {run.dir} is already trained to {done}; max_steps {steps} is less. "
            f"Take {done} or more, or another --run or --name"
        )
    before = read_order(run.dir / ORDER)
    split = before.config.get("deepspeed", "none")
    if steps != done and split != config.deepspeed:
        raise ConfigError(
            f"deepspeed={config.deepspeed}: {run.dir} is trained to step {done} with {split}, and its "
            "optimizer's state can only be read so. Take that, or another --run or --name"
        )
    if steps != done and before.world_size != processes:
        raise ConfigError(
            f"{run.dir}: trained to step {done} by {before.world_size} process(es), now {processes}; a resumed run "
            "needs as many: another number changes the optimizer's batch, or deals a generation batch otherwise. "
            "Take the old gpus, nodes and cpu_processes, or another --run or --name"
        )


def check_devices(config: TrainerConfig, run: StageRun) -> None:
    """Refuse what only GPUs, and more than one of them, can do."""
    if config.deepspeed == "none":
        return
    gpus = world_size(config, run) if run.resources.gpus else 0
    if gpus < 2:
        raise ConfigError(
            f"deepspeed={config.deepspeed}: splits among GPUs, and {gpus} train here; take none, or 2 or more"
        )


def refuse_adapter(model: str, field: str = "model") -> None:
    """Raise ConfigError where a folder to start from is an adapter, or holds nothing to start from."""
    if Path(model).is_dir() and checkpoint_kind(Path(model)) == "adapter":
        raise ConfigError(f"{field}: {model} is an adapter; merge it into its base first (stage merge)")


def read_order(path: Path) -> Order:
    """Return the order of a trainer process."""
    return Order.build(json.loads(path.read_text()), str(path))


def make_order(config: TrainerConfig, run: StageRun, options: Options) -> Order:
    """Return what the trainer processes are told."""
    return Order(
        argv=to_argv(options, config.swift),
        directory=str(run.dir),
        base=base_identity(run.model(config.model)),
        config=config.model_dump(mode="json"),
        world_size=world_size(config, run),
    )


def _run(config: TrainerConfig, run: StageRun, plan: Training, done: int) -> None:
    path, cpu = run.dir / ORDER, run.resources.gpus == 0
    write_json(path, make_order(config, run, plan.options).model_dump(mode="json"))
    processes = process_count(run.resources, config.cpu_processes)
    job = Job(plan.module, path, processes, cpu, trainer_log(run), plan.steps, done, config.server_nodes)
    run_job(job, run.resources)
