"""The sft stage: a LoRA warm-up on the teacher's answers, through ms-swift. Also the trainer process's entry point."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from btrm.checkpoints import MARK, read_mark, step_of, write_mark
from btrm.config import ConfigError, extent, runtime, setting, source
from btrm.leases import check_held
from btrm.publishing import replace
from btrm.runs import StageResult, StageRun
from btrm.train.attempt import leaving_nothing, whole_now
from btrm.train.options import (
    TrainerConfig,
    Training,
    check_devices,
    check_resume,
    common_options,
    read_order,
    refuse_adapter,
    train,
)
from btrm.train.rank import rank
from btrm.train.row_lengths import fitting_rows
from btrm.train.swift_options import SFT_OWNED, Options, check_passthrough

# What a checkpoint needs to be resumed, and an adapter does not.
_RESUME_ONLY = (
    "optimizer*",
    "scheduler*",
    "rng_state*",
    "trainer_state.json",
    "training_args.bin",
    "global_step*",
    "latest",
    "zero_to_fp32.py",
)


class SftConfig(TrainerConfig):
    """How a student learns the teacher's form and scores; defaults as published."""

    data: str = source("@sft_data/sft.jsonl", "chat rows to learn, {messages: […]} a line")
    epochs: float = extent(3.0, "passes over the rows", gt=0)
    max_steps: int = extent(0, "stop after so many optimizer steps; 0: epochs decide", published="MAX_STEPS", ge=0)
    save_steps: int = runtime(
        200, "keep a resumable checkpoint every so many steps to come", published="SAVE_STEPS", ge=1
    )
    gradient_accumulation: int = setting(4, "micro-steps an optimizer step", ge=1)


def check_sft(config: SftConfig, run: StageRun) -> None:
    """Refuse ms-swift options that btrm owns, an adapter to start from, and what cannot be resumed."""
    check_resume(config, run, config.max_steps or None)
    check_devices(config, run)
    _check_epochs(config, run)
    check_passthrough(config.swift, SFT_OWNED)
    refuse_adapter(run.model(config.model))


def run_sft(config: SftConfig, run: StageRun) -> StageResult:
    """Train (or resume) and publish the last checkpoint's adapter as `adapter/`."""
    model = run.model(config.model)
    with leaving_nothing(run):
        rows, report = fitting_rows(run, config.data, model, config.max_length, group=1)
        plan = Training("btrm.train.sft", sft_options(config, run, rows), config.max_steps or None)
        done = train(config, run, plan)
        if not done:
            raise ConfigError(f"{run.dir}: the trainer left no checkpoint")
    _publish_adapter(done[-1], run)
    results = {"step": step_of(done[-1]), **report}
    return StageResult({"adapter": None, "checkpoints/logging.jsonl": None}, results)


def sft_options(config: SftConfig, run: StageRun, rows: Path) -> Options:
    """Return ms-swift's options for this run."""
    options = common_options(config, run, rows, config.save_steps)
    options |= {"tuner_type": "lora", "truncation_strategy": "delete", "num_train_epochs": config.epochs}
    if config.max_steps:
        options["max_steps"] = config.max_steps
    return options


def _check_epochs(config: SftConfig, run: StageRun) -> None:
    """Refuse fewer epochs than are trained, where epochs decide."""
    whole = whole_now(run)
    if not whole or config.max_steps:
        return
    done = float(json.loads((whole[-1] / "trainer_state.json").read_text())["epoch"])
    if config.epochs < done - 1e-6:
        raise ConfigError(
            f"epochs: {run.dir} is already trained to {done:.3g}; epochs {config.epochs:.3g} is less. "
            f"Take {done:.3g} or more, or another --run or --name"
        )


def _publish_adapter(checkpoint: Path, run: StageRun) -> None:
    scratch = run.scratch("adapter")
    shutil.copytree(checkpoint, scratch, ignore=shutil.ignore_patterns(*_RESUME_ONLY, MARK))
    mark = read_mark(checkpoint)
    assert mark is not None
    write_mark(scratch, mark["base"], step_of(checkpoint))
    check_held()
    shutil.rmtree(run.dir / "adapter", ignore_errors=True)  # of an attempt with fewer steps
    replace(scratch, run.dir / "adapter")


if __name__ == "__main__":
    with rank():
        from btrm.train.swift_adapter import train_sft

        train_sft(read_order(Path(sys.argv[1])))
