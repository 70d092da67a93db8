"""ms-swift's options: which are ours, which pass through, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping

from btrm.config import ConfigError

Options = dict[str, str | int | float | bool | list[str]]

# An option that btrm sets itself, and the field that sets it (or why it is fixed).
_BOTH = {
    "model": "model",
    "model_type": "model_type",
    "template": "template",
    "dataset": "the stage's own rows",
    "val_dataset": "judged by its own stage",
    "split_dataset_ratio": "judged by its own stage",
    "eval_strategy": "judged by its own stage",
    "output_dir": "fixed: the stage's directory",
    "add_version": "fixed: the stage's directory",
    "logging_dir": "fixed: the stage's directory",
    "resume_from_checkpoint": "found by the stage",
    "resume_only_model": "fixed: a resumed run is the same run",
    "load_args": "fixed",
    "ignore_data_skip": "fixed: a resumed run is the same run",
    "save_only_model": "fixed: needed to resume",
    "save_strategy": "save_steps",
    "external_plugins": "fixed",
    "use_hf": "fixed",
    "use_cpu": "resources.gpus",
    "seed": "seed",
    "data_seed": "seed",
    "max_steps": "max_steps",
    "save_steps": "save_steps",
    "logging_steps": "logging_steps",
    "learning_rate": "learning_rate",
    "lr_scheduler_type": "lr_scheduler",
    "warmup_ratio": "warmup_ratio",
    "per_device_train_batch_size": "per_device_batch_size",
    "gradient_accumulation_steps": "gradient_accumulation",
    "gradient_checkpointing": "gradient_checkpointing",
    "torch_dtype": "dtype",
    "tuner_type": "tuner",
    "train_type": "tuner",
    "lora_rank": "lora_rank",
    "lora_alpha": "lora_alpha",
    "max_length": "max_length",
    "truncation_strategy": "fixed: rows that are too long are dropped whole, and counted",
    "packing": "fixed: rows are trained on one by one",
    "streaming": "fixed: the rows' order is part of the run",
    "report_to": "report_to",
    "trust_remote_code": "fixed: off",
    "accelerator_config": "fixed: batches are dealt to ranks by accelerate's defaults",
}
SFT_OWNED = {**_BOTH, "num_train_epochs": "epochs"}
GRPO_OWNED = {
    **_BOTH,
    "num_train_epochs": "max_steps",
    "rlhf_type": "fixed: grpo",
    "reward_funcs": "reward.name",
    "reward_weights": "fixed",
    "reward_model": "reward.name",
    "num_generations": "num_generations",
    "generation_batch_size": "generation_batch_size",
    "steps_per_generation": "generation_batch_size",
    "num_iterations": "num_iterations",
    "beta": "beta",
    "scale_rewards": "scale_rewards",
    "advantage_estimator": "fixed: grpo",
    "dynamic_sample": "dynamic_sample",
    "max_resample_times": "max_resample",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "max_completion_length": "max_completion_length",
    "use_vllm": "use_vllm",
    "dataset_shuffle": "fixed: the sampler's order",
    "train_dataloader_shuffle": "fixed: the sampler's order",
    "async_generate": "fixed: off, completions come from the current model",
    "multi_turn_scheduler": "fixed: one turn",
    "sequence_parallel_size": "fixed: 1, a rank holds whole pairs",
    "min_reward_std": "reward_std_floor (a floor) or min_group_std (a filter)",
}


def check_passthrough(swift: Mapping[str, str], owned: Mapping[str, str]) -> None:
    """Raise ConfigError for options that btrm sets itself, naming the field to use instead."""
    problems: list[str] = []
    for key, value in swift.items():
        name = key.lstrip("-").replace("-", "_")
        if name != key:
            problems.append(f"swift.{key}: write it as {name}")
        if name not in owned:
            continue
        why = owned[name]
        if name == "truncation_strategy" and value == "delete":
            why += "; `delete` swaps single rows for others and breaks pairs"
        problems.append(f"swift.{name}={value}: btrm sets this itself ({why})")
    if problems:
        raise ConfigError("\n".join(problems))


def to_argv(options: Options, swift: Mapping[str, str]) -> list[str]:
    """Return options as ms-swift's command line takes them; lists become several words."""
    argv: list[str] = []
    for key, value in {**options, **swift}.items():
        values = value if isinstance(value, list) else [value]
        argv += [f"--{key}", *(str(v).lower() if isinstance(v, bool) else str(v) for v in values)]
    return argv
