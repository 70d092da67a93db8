"""The toy task, start to table on two CPU cores: what `make demo` runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from btrm.data.pairs import PairsConfig
from btrm.data.sft_data import SftDataConfig
from btrm.judges.grid import JudgeConfig
from btrm.launch.plan import Experiment, Step
from btrm.metrics.evaluate import EvaluateConfig
from btrm.report.summary import SummarizeConfig
from btrm.rewards.config import RewardConfig
from btrm.runs import Resources
from btrm.teacher.config import TeacherConfig
from btrm.train.grpo import GrpoConfig
from btrm.train.merge import MergeConfig
from btrm.train.sft import SftConfig
from btrm.train.toy_model import ToyModelConfig

# ms-swift cannot tell the type of a model that it has never heard of.
_TINY: dict[str, Any] = {
    "model_type": "qwen2",
    "template": "chatml",
    "dtype": "float32",
    "gradient_checkpointing": False,
}
_CPU = Resources(gpus=0, cpus=2, mem_gb=6, time_min=30)


def _experiment(name: str, summary: str, sampler: Literal["pair", "stock"]) -> Experiment:
    lone_side: Literal["raise", "penalise"] = "raise" if sampler == "pair" else "penalise"
    # An unparsed answer earns less than the worst margin (-1.31), but not by much: at -3 it drowns its group's others.
    # At 20, a margin of 100 is so concave a loss that the first thing learnt is to give every response the same score.
    reward = RewardConfig(delta_temp=100, parse_fail=-2, lone_side=lone_side)
    sft = SftConfig(
        model="@toy_model/model",
        max_steps=100,
        learning_rate=5e-4,
        per_device_batch_size=16,
        gradient_accumulation=1,
        save_steps=50,
        max_length=256,
        **_TINY,
    )
    grpo = GrpoConfig(
        reward=reward,
        sampler=sampler,
        max_steps=250,
        save_steps=50,
        learning_rate=1e-3,
        num_generations=8,
        generation_batch_size=128,
        per_device_batch_size=64,
        cpu_processes=2,
        temperature=1.0,
        top_p=1.0,
        top_k=50,
        beta=0.04,  # holds the form of an answer, which so small a model at so high a rate would lose
        max_completion_length=9,  # <s>100</s> and its end: what follows a score would only drift
        max_length=256,
        dynamic_sample=False,
        **_TINY,
    )
    judge = JudgeConfig(
        checkpoints={"base": "@toy_model/model", "sft": "@merge/model", "grpo": "@grpo/checkpoints/checkpoint-*"},
        # The best checkpoint is selected on the one and told by the other.
        pairs={"validation": "@pairs/validation.pairs.parquet", "test": "@pairs/test.pairs.parquet"},
        n_pairs=None,
        max_new_tokens=9,
        max_length=256,
    )
    steps = (
        Step("toy_model", ToyModelConfig()),
        Step("pairs", PairsConfig(n_pairs={"train": 2000, "validation": 200, "test": 400})),
        # The teacher knows nothing: it teaches the form of an answer, and GRPO alone can teach the preference.
        Step("teacher", TeacherConfig(backend="rule_random", prompt="toy_score100")),
        Step("sft_data", SftDataConfig(prompt="toy_score100")),
        Step("sft", sft),
        Step("merge", MergeConfig(model="@toy_model/model", model_type="qwen2", template="chatml", dtype="float32")),
        Step("grpo", grpo),
        Step("judge", judge),
        Step("evaluate", EvaluateConfig()),
        Step("summarize", SummarizeConfig()),
    )
    return Experiment(name, summary, tuple(Step(s.stage, s.config, _CPU) for s in steps))


def demo() -> Experiment:
    """Return the whole path with the pair sampler: the judge learns what people prefer."""
    return _experiment("toy.demo", "the whole path on the toy task: the judge learns", "pair")


def control() -> Experiment:
    """Return the same with the trainer's stock sampler, which splits pairs: the judge stays where SFT left it."""
    return _experiment("toy.control", "the same with the stock sampler: nothing is learnt", "stock")


EXPERIMENTS: dict[str, Callable[[], Experiment]] = {"demo": demo, "control": control}
