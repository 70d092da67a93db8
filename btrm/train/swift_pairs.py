"""A plain ms-swift's GRPO trainer with what the patch series adds: the pair sampler, and a floor of a group's std.

A patched one asks its own options; this one has none, so its class says what they would.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, ClassVar, cast

import torch
from swift.rl_core import advantage
from swift.rlhf_trainers.arguments import GRPOConfig
from swift.rlhf_trainers.grpo_trainer import GRPOTrainer

from btrm.train import pair_hooks, swift_series

_GRPO = cast(Any, GRPOTrainer)
_EPS = 1e-4  # what GRPO adds to a group's std before it divides


class PlainGRPOTrainer(_GRPO):
    """`pair_sampler` and `min_reward_std` stand for the patched trainer's options of these names."""

    pair_sampler: ClassVar[bool] = False
    min_reward_std: ClassVar[float] = 0.0

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if not self.pair_sampler:
            return super()._get_train_sampler(train_dataset)
        return pair_hooks.train_sampler(self, train_dataset or self.train_dataset)

    def get_train_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """Return the trainer's loader; refuse one that would not deal our stream as it is."""
        loader = super().get_train_dataloader(*args, **kwargs)
        return pair_hooks.check_loader(self, loader) if self.pair_sampler else loader

    def _prepare_resample_data_iterator(self) -> None:
        with pair_hooks.resampling(self):
            super()._prepare_resample_data_iterator()

    def _prepare_inputs(self, inputs: Any) -> Any:
        if self.pair_sampler and self.model.training:
            pair_hooks.find_step(self)
        return super()._prepare_inputs(inputs)

    def compute_std(self, samples: Any, rewards_per_func: torch.Tensor) -> torch.Tensor:
        """Return each completion's std for dynamic sampling, the same for both sides of a pair."""
        std = super().compute_std(samples, rewards_per_func)
        return pair_hooks.pair_std(std, self.num_generations) if self.pair_sampler else std

    def _compute_advantages(self, samples: Any, rewards_per_func: torch.Tensor, batch_encoded_inputs: Any) -> Any:
        advantages = super()._compute_advantages(samples, rewards_per_func, batch_encoded_inputs)
        if self.min_reward_std == 0.0:
            return advantages
        reward_N = (rewards_per_func * self.reward_weights.unsqueeze(0)).nansum(dim=1)
        return floored(reward_N, self.num_generations, self.min_reward_std)


def floored(reward_N: torch.Tensor, num_generations: int, floor: float) -> torch.Tensor:
    """Return advantages whose group's std counts as at least the floor, by GRPO's own steps: the same to the last bit.

    A * (s + 1e-4) / (max(s, floor) + 1e-4), with A the plain advantage and s the std of its group.
    """
    grouped = reward_N.view(-1, num_generations)
    mean_N = grouped.mean(dim=1).repeat_interleave(num_generations)
    std_N = grouped.std(dim=1).repeat_interleave(num_generations)
    return (reward_N - mean_N) / (std_N.clamp(min=floor) + _EPS)


def contract() -> Iterator[tuple[str, bool]]:
    """Yield (what this class builds on, whether it is so) for the installed ms-swift."""
    expected = {
        "_get_train_sampler": ["self", "train_dataset"],
        "_prepare_resample_data_iterator": ["self"],
        "_prepare_inputs": ["self", "inputs"],
        "compute_std": ["self", "samples", "rewards_per_func"],
        "_compute_advantages": ["self", "samples", "rewards_per_func", "batch_encoded_inputs"],
    }
    for name, parameters in expected.items():
        method = getattr(GRPOTrainer, name, None)
        found = list(inspect.signature(method).parameters) if method is not None else None
        yield f"GRPOTrainer.{name}({', '.join(parameters)})", found == parameters
    source = inspect.getsource(GRPOTrainer)
    for text in ("self._buffered_inputs", "self._step %", "self.dynamic_resample_iterator", "enable_server_multi_turn"):
        yield f"GRPOTrainer uses {text}", text in source
    options = {field.name for field in fields(GRPOConfig)}
    for name in ("multi_turn_scheduler", *(("pair_sampler", "min_reward_std") if swift_series.is_in() else ())):
        yield f"GRPOConfig.{name}", name in options
    yield "swift.rl_core.advantage.compute_advantages divides by a group's std + 1e-4", _scales_by_group()


def _scales_by_group() -> bool:
    compute = getattr(advantage, "compute_advantages", None)
    rewards = torch.tensor([0.0, 1.0, 0.25, 0.5])
    return compute is not None and torch.equal(compute(rewards[:, None], torch.ones(1), 2)[0], floored(rewards, 2, 0.0))
