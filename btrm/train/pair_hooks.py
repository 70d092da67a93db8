"""What a GRPO trainer of ms-swift does to train on pairs: called by a patched one, or by a subclass of a plain one.

Part of btrm, Apache License 2.0. It needs nothing of btrm but the sampler beside it: the patch series puts both files
into ms-swift as they are. Tensors are torch's, by their own methods.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

from .pair_sampler import BatchPlan, Ints, PairRepeatSampler, index_pairs, pair_columns


def check_options(options: Any) -> None:
    """Raise ValueError where a trainer's options ask for a floor of the std and do not divide by a group's std."""
    floor, scale = options.min_reward_std, options.scale_rewards
    if floor < 0 or (floor > 0 and scale != "group"):
        raise ValueError(
            f"min_reward_std={floor}: is the least that a group's reward std counts as when advantages are scaled; "
            f"it must be 0 or more, and needs scale_rewards=group, got {scale}"
        )


def train_sampler(trainer: Any, dataset: Any) -> PairRepeatSampler:
    """Return the order of a trainer's data set: a training's, or what dynamic sampling draws from."""
    _refuse_what_parts_pairs(trainer)
    rows_P2, plan, seed = _pairs_of(dataset), _plan_of(trainer), trainer.args.seed
    if getattr(trainer, "pairs_resampling", False):
        # Each pass is another permutation, and a batch is drawn once: nobody repeats it for its micro-steps.
        return PairRepeatSampler(rows_P2, plan, seed, repeats=1, current_epoch=lambda: int(trainer.state.global_step))
    sampler = PairRepeatSampler(rows_P2, plan, seed, current_epoch=lambda: int((trainer.state.epoch or 0.0) + 1e-6))
    trainer.pairs_micro_steps = sampler.micro_steps
    return sampler


@contextlib.contextmanager
def resampling(trainer: Any) -> Generator[None]:
    """Let `train_sampler` return what dynamic sampling draws from."""
    trainer.pairs_resampling = True
    try:
        yield
    finally:
        trainer.pairs_resampling = False


def check_loader(trainer: Any, loader: Any) -> Any:
    """Return a loader; refuse one that would deal our stream in other blocks than whole local generation batches."""
    plan = _plan_of(trainer)
    local = plan.per_device * plan.steps_per_generation
    shard = loader.batch_sampler
    inner = getattr(shard, "batch_sampler", shard)
    sampler = getattr(inner, "sampler", None)
    split = bool(getattr(shard, "split_batches", False))
    if not isinstance(sampler, PairRepeatSampler) or inner.batch_size != local or split:
        raise ValueError(
            f"the data loader deals {getattr(inner, 'batch_size', '?')} rows of {type(sampler).__name__} "
            f"(split_batches={split}), not {local} of PairRepeatSampler; dispatch_batches and split_batches must be off"
        )
    return loader


def find_step(trainer: Any) -> None:
    """Put a resumed trainer, which counts from 0, where its data are, in the middle of a generation batch or not."""
    if getattr(trainer, "pairs_step_found", False):
        return
    accumulation = trainer.args.gradient_accumulation_steps
    updates = -(-trainer.pairs_micro_steps // accumulation)
    trainer._step = trainer._step or int(trainer.state.global_step) % updates * accumulation
    trainer.pairs_step_found = True


def pair_std(std_N: Any, num_generations: int) -> Any:
    """Return each completion's std for dynamic sampling: the larger of its pair's two, so that pairs stay whole."""
    return std_N.view(-1, 2 * num_generations).amax(dim=1).repeat_interleave(2 * num_generations)


def _plan_of(trainer: Any) -> BatchPlan:
    args = trainer.args
    return BatchPlan.build(
        args.generation_batch_size,
        trainer.accelerator.num_processes,
        args.per_device_train_batch_size,
        trainer.num_generations,
        trainer.num_iterations,
    )


def _refuse_what_parts_pairs(trainer: Any) -> None:
    """Raise ValueError for what would put other rows in the place of single rows, or answers of several turns."""
    wrong = {
        "truncation_strategy delete": trainer.template.truncation_strategy == "raise",
        "sequence_parallel_size above 1": trainer.template.sequence_parallel_size > 1,
        "a multi-turn scheduler": bool(trainer.args.multi_turn_scheduler) or trainer.enable_server_multi_turn,
    }
    if any(wrong.values()):
        raise ValueError(f"pair_sampler: does not go with {', '.join(what for what, is_so in wrong.items() if is_so)}")


def _pairs_of(dataset: Any) -> Ints:
    """Return rows_P2 of a Hugging Face data set, whose rows name their pair and their side."""
    columns: list[str] = getattr(dataset, "column_names", None) or []
    key = "label_id" if "label_id" in columns else "pair_id"
    if key not in columns or "side" not in columns or not hasattr(dataset, "data"):
        raise ValueError(
            f"pair_sampler: rows need the columns side (0 or 1) and pair_id or label_id; "
            f"{type(dataset).__name__} with {', '.join(columns) or 'none'}"
        )
    return index_pairs(*pair_columns(dataset, key))
