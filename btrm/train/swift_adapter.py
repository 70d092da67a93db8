"""btrm's parts in all of ms-swift's trainers: whole checkpoints, stopping, no model's own code. Sft, and export.

This file, `swift_pairs.py` and `swift_grpo.py` alone import swift, in trainer processes only. Our subclasses take the
places of their parents in ms-swift's own table of trainers; only the two attributes that make it trust a model's own
code are replaced. `check_contract` says what moved where a release differs.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, cast

import torch.distributed
from accelerate.utils import gather_object
from swift.model import model_meta, register
from swift.pipelines import export_main, sft_main
from swift.trainers import Seq2SeqTrainer
from swift.trainers.trainer_factory import TrainerFactory
from transformers import AutoConfig, TrainerCallback

from btrm.checkpoints import file_sizes, write_mark
from btrm.config import ConfigError
from btrm.stopping import Stopped
from btrm.train.options import CHECKPOINTS, Order
from btrm.train.outputs import publish
from btrm.train.rank import agree_to_stop, report_step

# ms-swift's annotations do not describe its trainers as they are once built; ours are checked at run time.
_SFT = cast(Any, Seq2SeqTrainer)


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

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        if agree_to_stop() and state.global_step < state.max_steps:  # asked while it was saved: that will do
            self.trainer.stopped = True
            control.should_training_stop = True


class MarkedSftTrainer(WholeCheckpoints, _SFT):
    """ms-swift's SFT trainer with marked checkpoints."""


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
    check_contract(contract())
    keep_remote_code_off()
    MarkedSftTrainer.order = order
    TrainerFactory.TRAINER_MAPPING["causal_lm"] = f"{__name__}.{MarkedSftTrainer.__name__}"
    sft_main(order.argv)
    leave(MarkedSftTrainer)


def export(order: Order) -> None:
    """Export as ordered (the merge stage)."""
    check_contract(contract())
    keep_remote_code_off()
    export_main(order.argv)


def serve(order: Order, port: int) -> None:
    """Serve completions of the model that is being trained, until this process is ended."""
    from swift.pipelines import rollout_main  # brings vLLM along

    check_contract(contract())
    keep_remote_code_off()
    rollout_main([*order.argv, "--port", str(port)])


def contract() -> Iterator[tuple[str, bool]]:
    """Yield (what we build on, whether it is so) for this ms-swift."""
    yield "Seq2SeqTrainer._save_checkpoint", hasattr(Seq2SeqTrainer, "_save_checkpoint")
    yield from trainer_in_table("causal_lm", "swift.trainers.Seq2SeqTrainer", f"{__name__}.{MarkedSftTrainer.__name__}")
    yield "swift.model.model_meta.AutoConfig", hasattr(model_meta, "AutoConfig")
    loader = getattr(register, "ModelLoader", None)
    yield "swift.model.register.ModelLoader.default_trust_remote_code", hasattr(loader, "default_trust_remote_code")


def trainer_in_table(key: str, parent: str, ours: str) -> Iterator[tuple[str, bool]]:
    """Yield whether ms-swift's table of trainers has the parent of ours, or ours by now, under a key."""
    mapping = cast("dict[str, str]", getattr(TrainerFactory, "TRAINER_MAPPING", {}))
    yield f"TrainerFactory.TRAINER_MAPPING[{key!r}] is {parent}", mapping.get(key) in {parent, ours}


def check_contract(holding: Iterable[tuple[str, bool]]) -> None:
    """Raise ConfigError that names what moved where this ms-swift differs from the one that we build on."""
    moved = [what for what, holds in holding if not holds]
    if moved:
        import swift

        version = getattr(swift, "__version__", "?")
        raise ConfigError(
            f"ms-swift {version} is not the one that btrm builds on (4.6.0); not as expected: {'; '.join(moved)}. "
            "Install ms-swift==4.6.0, or adapt btrm/train/swift_adapter.py, swift_pairs.py, swift_grpo.py"
        )


def leave(trainer: type[WholeCheckpoints]) -> None:
    """Leave the process group with all the others; raise Stopped where the training was asked to stop."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    if trainer.stopped:
        raise Stopped("at the end of a step, with a checkpoint")
