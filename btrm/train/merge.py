"""The merge stage: an adapter and its base become one model folder, through ms-swift's export."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Literal

from btrm.checkpoints import base_identity, check_adapter_base, checkpoint_kind
from btrm.config import setting, source
from btrm.leases import check_held
from btrm.publishing import replace, write_json
from btrm.runs import StageConfig, StageResult, StageRun
from btrm.train.attempt import ORDER, leaving_nothing, trainer_log
from btrm.train.launch import Job, JobError, run_job
from btrm.train.options import Order, read_order, refuse_adapter
from btrm.train.rank import rank
from btrm.train.swift_options import Options, to_argv


class MergeConfig(StageConfig):
    """What is merged."""

    model: str = source("Qwen/Qwen2.5-7B-Instruct", "the adapter's base", published="MODEL")
    adapter: str = source("@sft/adapter", "the adapter")
    model_type: str | None = setting(None, "ms-swift's model_type, where it cannot tell from the model")
    template: str | None = setting(None, "ms-swift's chat template, where it cannot tell from the model")
    dtype: Literal["bfloat16", "float16", "float32"] = setting("bfloat16", "number format of the merged weights")


def check_merge(config: MergeConfig, run: StageRun) -> None:
    """Refuse an adapter as the model, and an adapter of another base."""
    model = run.model(config.model)
    refuse_adapter(model)
    check_adapter_base(run.input(config.adapter), model)


def run_merge(config: MergeConfig, run: StageRun) -> StageResult:
    """Merge and publish `model/`."""
    model, adapter = run.model(config.model), run.input(config.adapter)
    target = run.scratch("model")  # a folder that does not exist: ms-swift keeps old weights in one that does
    order = Order(
        argv=to_argv(_options(config, model, adapter, target), {}),
        directory=str(run.dir),
        base=base_identity(model),
        config=config.model_dump(mode="json"),
        world_size=1,
    )
    with leaving_nothing(run):
        _export(order, run)
        if not target.is_dir() or checkpoint_kind(target) != "full":
            raise JobError("ms-swift's export left no model and", 0, trainer_log(run))
    check_held()
    shutil.rmtree(run.dir / "model", ignore_errors=True)
    replace(target, run.dir / "model")
    return StageResult({"model": None}, {"base": order.base})


def _export(order: Order, run: StageRun) -> None:
    write_json(run.dir / ORDER, order.model_dump(mode="json"))
    one = run.resources.model_copy(update={"nodes": 1})
    run_job(Job("btrm.train.merge", run.dir / ORDER, 1, one.gpus == 0, trainer_log(run), None), one)


def _options(config: MergeConfig, model: str, adapter: Path, target: Path) -> Options:
    options: Options = {
        "model": model,
        "adapters": str(adapter),
        "merge_lora": True,
        "output_dir": str(target),
        "use_hf": True,
        "torch_dtype": config.dtype,
        "load_args": False,
    }
    if config.model_type is not None:
        options["model_type"] = config.model_type
    if config.template is not None:
        options["template"] = config.template
    return options


if __name__ == "__main__":
    with rank():
        from btrm.train.swift_adapter import export

        export(read_order(Path(sys.argv[1])))
