"""ms-swift's options: which are ours, which pass through, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping

from btrm.config import ConfigError

Options = dict[str, str | int | float | bool | list[str]]

# What btrm sets itself or builds on: the field that sets it, or `fixed: why`.
_BREAKS_PAIRS = "; `delete` swaps single rows for others and breaks pairs"
_HUB = "fixed: nothing is uploaded; for private models set HF_TOKEN in .env, never on a command line"
_BOTH = {
    "model": "model",
    "model_type": "model_type",
    "template": "template",
    "check_model": "fixed: off",
    "adapters": "fixed: none, a run starts from `model`; merge an adapter into its base first (stage merge)",
    "dataset": "fixed: the stage's own rows",
    "val_dataset": "fixed: checkpoints are judged by their own stage",
    "split_dataset_ratio": "fixed: checkpoints are judged by their own stage",
    "eval_strategy": "fixed: checkpoints are judged by their own stage",
    "load_from_cache_file": "fixed: rows are read anew",
    "strict": "fixed: on, a broken row is an error",
    "dataloader_num_workers": "fixed: 0, a row is drawn when it is used",
    "output_dir": "fixed: the stage's directory",
    "add_version": "fixed: the stage's directory",
    "logging_dir": "fixed: the stage's directory",
    "resume_from_checkpoint": "fixed: found by the stage",
    "resume_only_model": "fixed: a resumed run is the same run",
    "load_args": "fixed: a run is what its request says",
    "ignore_data_skip": "fixed: a resumed run is the same run",
    "save_only_model": "fixed: needed to resume",
    "save_strategy": "save_steps",
    "auto_find_batch_size": "fixed: off, a batch is what was asked for",
    "save_total_limit": "fixed: every checkpoint is kept, to be judged",
    "external_plugins": "fixed: rewards are named by reward.name",
    "use_hf": "fixed: models come from Hugging Face",
    "use_cpu": "fixed: where there is no GPU",
    "hub_token": _HUB,
    "hub_model_id": _HUB,
    "push_to_hub": _HUB,
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
    "deepspeed": "deepspeed",
    "torch_dtype": "dtype",
    "bf16": "dtype",
    "fp16": "dtype",
    "lora_rank": "lora_rank",
    "lora_alpha": "lora_alpha",
    "target_modules": "fixed: all linear layers",
    "max_length": "max_length",
    "truncation_strategy": "fixed: rows that are too long are dropped whole, and counted",
    "packing": "fixed: rows are trained on one by one",
    "streaming": "fixed: the rows' order is part of the run",
    "report_to": "report_to",
    "trust_remote_code": "fixed: off",
    "accelerator_config": "fixed: batches are dealt to ranks by accelerate's defaults",
}
_LORA = "fixed: lora"
_SERVERS = "fixed: the nodes that serve, see vllm_mode"
SFT_OWNED = {**_BOTH, "num_train_epochs": "epochs", "max_epochs": "epochs", "tuner_type": _LORA, "train_type": _LORA}
GRPO_OWNED = {
    **_BOTH,
    "num_train_epochs": "max_steps",
    "max_epochs": "max_steps",
    "tuner_type": "tuner",
    "train_type": "tuner",
    "rlhf_type": "fixed: grpo",
    "reward_funcs": "reward.name",
    "reward_weights": "fixed: the reward counts, the pair weight rides along",
    "reward_model": "reward.name",
    "num_generations": "num_generations",
    "generation_batch_size": "generation_batch_size",
    "steps_per_generation": "generation_batch_size",
    "num_iterations": "num_iterations",
    "beta": "beta",
    "kl_in_reward": "fixed: off, the reward is the pair's alone; beta weighs the KL in the loss",
    "scale_rewards": "scale_rewards",
    "advantage_estimator": "fixed: grpo",
    "dynamic_sample": "dynamic_sample",
    "max_resample_times": "max_resample",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "max_completion_length": "max_completion_length",
    "log_completions": "log_completions",
    "use_vllm": "use_vllm",
    "vllm_mode": "vllm_mode",
    "vllm_tensor_parallel_size": "vllm_tensor_parallel",
    "vllm_gpu_memory_utilization": "vllm_gpu_memory_utilization",
    "vllm_server_host": _SERVERS,
    "vllm_server_port": _SERVERS,
    "vllm_server_base_url": _SERVERS,
    "pair_sampler": "sampler",
    "train_sampling_strategy": "fixed: the sampler's order",
    "dataset_shuffle": "fixed: the sampler's order",
    "train_dataloader_shuffle": "fixed: the sampler's order",
    "async_generate": "fixed: off, completions come from the current model",
    "multi_turn_scheduler": "fixed: one turn",
    "sequence_parallel_size": "fixed: 1, a rank holds whole pairs",
    "min_reward_std": "fixed: see reward_std_floor (a floor) and min_group_std (a filter)",
}


def check_passthrough(swift: Mapping[str, str], owned: Mapping[str, str]) -> None:
    """Raise ConfigError for options that btrm sets itself, naming the field to use instead."""
    problems: list[str] = []
    for key, value in swift.items():
        name = key.lstrip("-").replace("-", "_")
        if name != key:
            problems.append(f"swift.{key}: write it as {name}")
        why = _refusal(name, value, owned)
        if why is not None:
            problems.append(f"swift.{name}{why}")
    if problems:
        raise ConfigError("\n".join(problems))


def _refusal(name: str, value: str, owned: Mapping[str, str]) -> str | None:
    """Return why an option cannot pass through, or None."""
    if name.startswith("push_to_hub") or name == "hub_token":
        return f": btrm sets this itself ({_HUB})"  # without its value: it may be a secret
    if name not in owned:
        # ms-swift's command line takes the beginnings of options for options.
        whole = [option for option in owned if option.startswith(name)]
        return f"={value}: write options out; this is the beginning of {', '.join(whole)}" if whole else None
    what = owned[name]
    if not what.startswith("fixed: "):
        return f"={value}: btrm sets this itself; set the field {what}"
    broken = name == "truncation_strategy" and value == "delete"
    return f"={value}: btrm sets this itself ({what}{_BREAKS_PAIRS if broken else ''})"


def to_argv(options: Options, swift: Mapping[str, str]) -> list[str]:
    """Return options as ms-swift's command line takes them; lists become several words."""
    argv: list[str] = []
    for key, value in {**options, **swift}.items():
        values = value if isinstance(value, list) else [value]
        argv += [f"--{key}", *(str(v).lower() if isinstance(v, bool) else str(v) for v in values)]
    return argv
