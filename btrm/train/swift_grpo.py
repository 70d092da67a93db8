"""btrm's parts in ms-swift's GRPO trainer: the reward, the pair weights, the metrics, whoever brings the pairs.

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

from btrm.rewards.config import RewardConfig
from btrm.rewards.pair_batch import PairBatch
from btrm.rewards.reward import Rewards, compute_rewards
from btrm.score_text import close_tag
from btrm.scores import PARSERS, parse_score
from btrm.train import swift_adapter, swift_pairs, swift_series
from btrm.train.advantages import Scored, shape_advantages, train_metrics
from btrm.train.grpo import GrpoConfig
from btrm.train.options import Order
from btrm.train.swift_adapter import WholeCheckpoints
from btrm.train.swift_pairs import PlainGRPOTrainer

_PATCHED = swift_series.is_in()
_ORM, _PARENT = cast(Any, ORM), cast(Any, GRPOTrainer if _PATCHED else PlainGRPOTrainer)
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


class PairGRPOTrainer(WholeCheckpoints, _PARENT):
    """ms-swift's GRPO trainer, on pairs, with our filter, our pair weights and our metrics."""

    config: ClassVar[GrpoConfig]

    def _compute_advantages(self, samples: Any, rewards_per_func: torch.Tensor, batch_encoded_inputs: Any) -> Any:
        advantages = super()._compute_advantages(samples, rewards_per_func, batch_encoded_inputs)
        columns = rewards_per_func.detach().double().cpu().numpy()
        shaped = shape_advantages(
            advantages.detach().double().cpu().numpy(),
            columns[:, _REWARD],
            columns[:, _WEIGHT],
            self.num_generations,
            self.config.min_group_std,
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
    argv = [*order.argv, *_ask_for_pairs(config)]
    _REWARDS["btrm_reward"], _REWARDS["btrm_weight"] = PairReward, PairWeight
    TrainerFactory.TRAINER_MAPPING["grpo"] = f"{__name__}.{PairGRPOTrainer.__name__}"
    PairReward.eos = _eos_of(order.argv)
    rlhf_main(argv)
    swift_adapter.leave(PairGRPOTrainer)


def _ask_for_pairs(config: GrpoConfig) -> list[str]:
    """Return a patched ms-swift's options for the sampler and the floor; a plain one's trainer is told here."""
    pairs, floor = config.sampler == "pair", config.reward_std_floor
    if _PATCHED:
        return ["--pair_sampler", str(pairs).lower(), "--min_reward_std", str(floor)]
    PlainGRPOTrainer.pair_sampler, PlainGRPOTrainer.min_reward_std = pairs, floor
    return []


def contract() -> Iterator[tuple[str, bool]]:
    """Yield (what we build on, whether it is so) for this ms-swift, patched or plain."""
    yield from swift_adapter.contract()
    yield from swift_pairs.contract()
    yield "GRPOTrainer._save_checkpoint", hasattr(GRPOTrainer, "_save_checkpoint")
    ours = f"{__name__}.{PairGRPOTrainer.__name__}"
    yield from swift_adapter.trainer_in_table("grpo", "swift.rlhf_trainers.GRPOTrainer", ours)
    yield "GRPOTrainer uses self._metrics[mode]", "self._metrics[mode]" in inspect.getsource(GRPOTrainer)
    yield "swift.rewards.orms is a dict", type(_REWARDS) is dict


def _eos_of(argv: list[str]) -> str | None:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(argv[argv.index("--model") + 1]).eos_token
