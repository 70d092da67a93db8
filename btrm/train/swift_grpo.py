"""btrm's parts in ms-swift's GRPO trainer: the sampler, the reward, the advantages.

Apart from `swift_adapter.py`, since this trainer brings vLLM along, which takes long to load.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, ClassVar, cast

import numpy as np
import torch
from accelerate.utils import gather_object
from swift.pipelines import rlhf_main
from swift.rewards import ORM, orms
from swift.rlhf_trainers.grpo_trainer import GRPOTrainer
from swift.trainers.trainer_factory import TrainerFactory

from btrm.config import ConfigError
from btrm.rewards.config import RewardConfig
from btrm.rewards.pair_batch import PairBatch
from btrm.rewards.reward import Rewards, compute_rewards
from btrm.score_text import close_tag
from btrm.scores import PARSERS, parse_score
from btrm.train import swift_adapter
from btrm.train.advantages import Scored, shape_advantages, train_metrics
from btrm.train.grpo import GrpoConfig, batch_plan
from btrm.train.options import Order
from btrm.train.pair_sampler import BatchPlan, PairRepeatSampler, index_pairs, pair_columns
from btrm.train.swift_adapter import WholeCheckpoints

_ORM, _GRPO = cast(Any, ORM), cast(Any, GRPOTrainer)
_REWARDS = cast("dict[str, Any]", orms)
_REWARD, _WEIGHT = 0, 1  # columns of rewards_per_func


class PairReward(_ORM):
    """Rewards a rank's completions; both sides of a pair must be among them."""

    config: ClassVar[RewardConfig]
    eos: ClassVar[str | None] = None
    last: ClassVar[Rewards | None] = None
    unlogged: ClassVar[list[Scored]] = []

    def __call__(self, completions: list[str], **columns: Any) -> list[float]:
        """Return a reward a completion; `columns` are the rows' own, and what the trainer adds."""
        cls = type(self)
        parser = PARSERS[cls.config.parser]
        reasons = cast("list[str | None]", columns["finish_reason"])
        texts = [
            close_tag(text, cls.eos, reason != "length") for text, reason in zip(completions, reasons, strict=True)
        ]
        scores = [parse_score(text, parser, reason) for text, reason in zip(texts, reasons, strict=True)]
        values = np.array([np.nan if s.value is None else s.value for s in scores])
        keys = columns.get("label_id") or columns["pair_id"]
        batch = PairBatch.build(values, keys, columns["side"], columns["preferred_side"], cls.config.lone_side)
        rewards = compute_rewards(batch, cls.config)
        cls.last = rewards
        cls.unlogged.append(Scored(rewards.reward_N, rewards.margin_N, [str(s.outcome) for s in scores]))
        return rewards.reward_N.tolist()


class PairWeight(_ORM):
    """Hands on the pair weights of the completions just rewarded; worth nothing as a reward itself."""

    def __call__(self, completions: list[str], **columns: Any) -> list[float]:  # noqa: ARG002
        """Return the weight of each of the completions that PairReward was called with just before."""
        assert PairReward.last is not None and len(PairReward.last.weight_N) == len(completions)
        return PairReward.last.weight_N.tolist()


class PairGRPOTrainer(WholeCheckpoints, _GRPO):
    """ms-swift's GRPO trainer with our sampler, our advantages and our metrics."""

    config: ClassVar[GrpoConfig]
    plan: ClassVar[BatchPlan]
    _resampling = False
    _resumed_at: int | None = None

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self.config.sampler == "stock":
            return super()._get_train_sampler(train_dataset)
        rows_P2 = _pairs_of(train_dataset or self.train_dataset)
        if self._resampling:
            # Each pass is another permutation, and a batch is drawn once: nobody repeats it for its micro-steps.
            return PairRepeatSampler(rows_P2, self.plan, self.args.seed, repeats=1, current_epoch=self._step_now)
        self._pairs_per_epoch = len(rows_P2)
        return PairRepeatSampler(rows_P2, self.plan, self.args.seed, current_epoch=self._epoch_now)

    def get_train_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        """Return the trainer's loader; refuse one that would not deal our stream as it is."""
        loader = super().get_train_dataloader(*args, **kwargs)
        if self.config.sampler == "pair":
            _check_loader(loader, self.plan)
        return loader

    def _epoch_now(self) -> int:
        return int((self.state.epoch or 0.0) + 1e-6)

    def _step_now(self) -> int:
        return int(self.state.global_step)

    def _prepare_resample_data_iterator(self) -> None:
        self._resampling = True
        try:
            super()._prepare_resample_data_iterator()
        finally:
            self._resampling = False

    def _prepare_inputs(self, inputs: Any) -> Any:
        if self.model.training and self._resumed_at is None:
            # A resumed trainer counts from 0: put it where its data are, in the middle of a generation batch or not.
            self._resumed_at = self._step = self._step or self._micro_step()
        return super()._prepare_inputs(inputs)

    def _micro_step(self) -> int:
        if self.config.sampler == "stock":
            return 0
        micro = self._pairs_per_epoch // self.plan.pairs * self.plan.repeats
        accumulation = self.args.gradient_accumulation_steps
        updates = -(-micro // accumulation)
        return int(self.state.global_step) % updates * accumulation

    def compute_std(self, samples: Any, rewards_per_func: torch.Tensor) -> torch.Tensor:
        """Return each completion's std for dynamic sampling: the larger of its pair's two, so that pairs stay whole."""
        std = super().compute_std(samples, rewards_per_func)
        if self.config.sampler == "stock":
            return std
        return std.view(-1, 2 * self.num_generations).amax(dim=1).repeat_interleave(2 * self.num_generations)

    def _compute_advantages(self, samples: Any, rewards_per_func: torch.Tensor, batch_encoded_inputs: Any) -> Any:
        advantages = super()._compute_advantages(samples, rewards_per_func, batch_encoded_inputs)
        columns = rewards_per_func.detach().double().cpu().numpy()
        shaped = shape_advantages(
            advantages.detach().double().cpu().numpy(),
            columns[:, _REWARD],
            columns[:, _WEIGHT],
            self.num_generations,
            std_floor=self.config.reward_std_floor,
            min_std=self.config.min_group_std,
        )
        self._log_batch()
        return torch.as_tensor(shaped, dtype=advantages.dtype, device=advantages.device)

    def _log_batch(self) -> None:
        """Add our metrics, over the completions of all ranks since the last call, to the trainer's own."""
        mine, PairReward.unlogged = PairReward.unlogged, []
        for name, value in train_metrics(gather_object(mine)).items():
            self._metrics["train" if self.model.training else "eval"][name].append(value)


def train_grpo(order: Order) -> None:
    """Train as ordered; called in every trainer process."""
    swift_adapter.check_contract(contract())
    swift_adapter.keep_remote_code_off()
    config = GrpoConfig.build(order.config)
    PairReward.config = config.reward.resolved()
    PairGRPOTrainer.order, PairGRPOTrainer.config = order, config
    PairGRPOTrainer.plan = batch_plan(config, order.world_size)
    _REWARDS["btrm_reward"], _REWARDS["btrm_weight"] = PairReward, PairWeight
    TrainerFactory.TRAINER_MAPPING["grpo"] = f"{__name__}.{PairGRPOTrainer.__name__}"
    PairReward.eos = _eos_of(order.argv)
    rlhf_main(order.argv)
    swift_adapter.leave(PairGRPOTrainer)


def contract() -> Iterator[tuple[str, bool]]:
    """Yield (what we build on, whether it is so) for this ms-swift."""
    yield from swift_adapter.contract()
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
    yield "GRPOTrainer._save_checkpoint", hasattr(GRPOTrainer, "_save_checkpoint")
    ours = f"{__name__}.{PairGRPOTrainer.__name__}"
    yield from swift_adapter.trainer_in_table("grpo", "swift.rlhf_trainers.GRPOTrainer", ours)
    source = inspect.getsource(GRPOTrainer)
    for text in ("self._buffered_inputs", "self._step %", "self._metrics[mode]", "self.dynamic_resample_iterator"):
        yield f"GRPOTrainer uses {text}", text in source
    yield "swift.rewards.orms is a dict", type(_REWARDS) is dict


def _pairs_of(dataset: Any) -> Any:
    """Return rows_P2 of a Hugging Face dataset."""
    return index_pairs(*pair_columns(dataset, "label_id" if "label_id" in dataset.column_names else "pair_id"))


def _check_loader(loader: Any, plan: BatchPlan) -> None:
    """Refuse a loader that would deal our stream in other blocks than whole local generation batches."""
    local = plan.per_device * plan.steps_per_generation
    shard = loader.batch_sampler
    inner = getattr(shard, "batch_sampler", shard)
    sampler = getattr(inner, "sampler", None)
    split = bool(getattr(shard, "split_batches", False))
    if not isinstance(sampler, PairRepeatSampler) or inner.batch_size != local or split:
        raise ConfigError(
            f"the data loader deals {getattr(inner, 'batch_size', '?')} rows of {type(sampler).__name__} "
            f"(split_batches={split}), not {local} of PairRepeatSampler; dispatch_batches and split_batches must be off"
        )


def _eos_of(argv: list[str]) -> str | None:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(argv[argv.index("--model") + 1]).eos_token
