"""btrm's parts in ms-swift's trainers: the sampler, the reward, the advantages, whole checkpoints.

The only file that imports swift; it runs in trainer processes only. Our subclasses take the places of their parents in
ms-swift's own table of trainers; only the two attributes that make it trust a model's own code are replaced.
`check_contract` says what moved where a release differs.
"""

from __future__ import annotations

import inspect
from collections import ChainMap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.distributed
from accelerate.utils import gather_object
from swift.model import model_meta, register
from swift.pipelines import export_main, rlhf_main, sft_main
from swift.rewards import ORM, orms
from swift.rlhf_trainers.grpo_trainer import GRPOTrainer
from swift.trainers import Seq2SeqTrainer
from swift.trainers.trainer_factory import TrainerFactory
from transformers import AutoConfig, TrainerCallback

from btrm.checkpoints import file_sizes, write_mark
from btrm.config import ConfigError
from btrm.rewards.config import RewardConfig
from btrm.rewards.pair_batch import PairBatch
from btrm.rewards.reward import Rewards, compute_rewards
from btrm.score_text import close_tag
from btrm.scores import PARSERS, parse_score
from btrm.stopping import Stopped
from btrm.train.advantages import Scored, shape_advantages, train_metrics
from btrm.train.grpo import GrpoConfig, batch_plan
from btrm.train.options import CHECKPOINTS, Order
from btrm.train.outputs import publish
from btrm.train.pair_sampler import BatchPlan, PairRepeatSampler, index_pairs, pair_columns
from btrm.train.rank import agree_to_stop, report_step

# ms-swift's annotations do not describe its trainers as they are once built; ours are checked at run time.
_ORM, _GRPO, _SFT = cast(Any, ORM), cast(Any, GRPOTrainer), cast(Any, Seq2SeqTrainer)
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


class WholeCheckpoints:
    """A trainer that marks its checkpoints when all processes have written their part, and says how far it is.

    Where it is asked to stop it ends its step, saves a checkpoint and sets `stopped`.
    """

    order: ClassVar[Order]
    stopped: ClassVar[bool] = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        trainer = cast(Any, self)
        trainer.add_callback(_Steps(type(self)))

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> Any:
        trainer = cast(Any, self)
        result = cast(Any, super())._save_checkpoint(*args, **kwargs)
        trainer.accelerator.wait_for_everyone()
        step, order = int(trainer.state.global_step), type(self).order
        folder = Path(trainer.args.output_dir) / f"checkpoint-{step}"
        seen = ChainMap(*gather_object([file_sizes(folder)]))
        if trainer.args.should_save:
            write_mark(folder, order.base, step, seen)
            published = publish(folder, Path(order.directory) / CHECKPOINTS)
            trainer.state.last_model_checkpoint = str(published)
        trainer.accelerator.wait_for_everyone()
        return result


class _Steps(TrainerCallback):
    """Says how many steps are done, and stops the training after one where any process was asked to."""

    def __init__(self, trainer: type[WholeCheckpoints]) -> None:
        self.trainer = trainer
        self.directory = Path(trainer.order.directory)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        # A checkpoint brings its old save_steps and logging_steps along; a resumed run goes by those it was given.
        state.compute_steps(args, state.max_steps)
        if agree_to_stop():
            raise Stopped("asked to stop before the first step")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        if state.is_world_process_zero:
            report_step(self.directory, int(state.global_step), int(state.max_steps))
        if agree_to_stop() and state.global_step < state.max_steps:
            self.trainer.stopped = True
            control.should_save = control.should_training_stop = True


class MarkedSftTrainer(WholeCheckpoints, _SFT):
    """ms-swift's SFT trainer with marked checkpoints."""


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


class _OwnConfigs:
    """AutoConfig for ms-swift's first look at a model, which would run code that came with the model."""

    @staticmethod
    def from_pretrained(name: str, **_: Any) -> Any:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)


def keep_remote_code_off() -> None:
    """Load models by transformers' own classes only; ms-swift has no option for it and would trust any model."""
    cast(Any, model_meta).AutoConfig = _OwnConfigs
    cast(Any, register).ModelLoader.default_trust_remote_code = False


def train_sft(order: Order) -> None:
    """Train as ordered; called in every trainer process."""
    _prepare()
    MarkedSftTrainer.order = order
    TrainerFactory.TRAINER_MAPPING["causal_lm"] = f"{__name__}.{MarkedSftTrainer.__name__}"
    sft_main(order.argv)
    _leave(MarkedSftTrainer)


def train_grpo(order: Order) -> None:
    """Train as ordered; called in every trainer process."""
    _prepare()
    config = GrpoConfig.build(order.config)
    PairReward.config = config.reward.resolved()
    PairGRPOTrainer.order, PairGRPOTrainer.config = order, config
    PairGRPOTrainer.plan = batch_plan(config, order.world_size)
    _REWARDS["btrm_reward"], _REWARDS["btrm_weight"] = PairReward, PairWeight
    TrainerFactory.TRAINER_MAPPING["grpo"] = f"{__name__}.{PairGRPOTrainer.__name__}"
    PairReward.eos = _eos_of(order.argv)
    rlhf_main(order.argv)
    _leave(PairGRPOTrainer)


def export(order: Order) -> None:
    """Export as ordered (the merge stage)."""
    _prepare()
    export_main(order.argv)


def _prepare() -> None:
    check_contract()
    keep_remote_code_off()


def contract() -> Iterator[tuple[str, bool]]:
    """Yield (what we build on, whether it is so) for this ms-swift."""
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
    for base in (GRPOTrainer, Seq2SeqTrainer):
        yield f"{base.__name__}._save_checkpoint", hasattr(base, "_save_checkpoint")
    mapping = cast("dict[str, str]", getattr(TrainerFactory, "TRAINER_MAPPING", {}))
    ours = {f"{__name__}.{cls.__name__}" for cls in (PairGRPOTrainer, MarkedSftTrainer)}
    for key, parent in (("grpo", "swift.rlhf_trainers.GRPOTrainer"), ("causal_lm", "swift.trainers.Seq2SeqTrainer")):
        yield f"TrainerFactory.TRAINER_MAPPING[{key!r}] is {parent}", mapping.get(key) in {parent, *ours}
    source = inspect.getsource(GRPOTrainer)
    for text in ("self._buffered_inputs", "self._step %", "self._metrics[mode]", "self.dynamic_resample_iterator"):
        yield f"GRPOTrainer uses {text}", text in source
    yield "swift.model.model_meta.AutoConfig", hasattr(model_meta, "AutoConfig")
    loader = getattr(register, "ModelLoader", None)
    yield "swift.model.register.ModelLoader.default_trust_remote_code", hasattr(loader, "default_trust_remote_code")
    yield "swift.rewards.orms is a dict", type(_REWARDS) is dict


def check_contract() -> None:
    """Raise ConfigError that names what moved where this ms-swift differs from the one that we build on."""
    moved = [what for what, holds in contract() if not holds]
    if moved:
        import swift

        version = getattr(swift, "__version__", "?")
        raise ConfigError(
            f"ms-swift {version} is not the one that btrm builds on (4.6.0); not as expected: {'; '.join(moved)}. "
            "Install ms-swift==4.6.0, or adapt btrm/train/swift_adapter.py"
        )


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


def _leave(trainer: type[WholeCheckpoints]) -> None:
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    if trainer.stopped:
        raise Stopped("at the end of a step, with a checkpoint")
