"""The toy task, start to table on two CPU cores: what `make demo` runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from btrm.data.pairs import PairsConfig
from btrm.data.sft_data import SftDataConfig
from btrm.judges.grid import JudgeConfig
from btrm.judges.teacher import TeacherConfig
from btrm.launch.plan import Experiment, Step
from btrm.metrics.evaluate import EvaluateConfig
from btrm.report.summary import SummarizeConfig
from btrm.rewards.config import RewardConfig
from btrm.runs import Resources
from btrm.train.grpo import GrpoConfig
from btrm.train.merge import MergeConfig
from btrm.train.sft import SftConfig
from btrm.train.toy_model import ToyModelConfig

_CPU = Resources(gpus=0, cpus=2, mem_gb=6, time_min=30)


def _experiment(name: str, summary: str, sampler: Literal["pair", "stock"]) -> Experiment:
    lone_side: Literal["raise", "penalise"] = "raise" if sampler == "pair" else "penalise"
    reward = RewardConfig(delta_temp=50, parse_fail=-3, lone_side=lone_side)
    steps = (
        Step("toy_model", ToyModelConfig()),
        Step("pairs", PairsConfig(n_pairs={"train": 2000, "validation": 200, "test": 400})),
        # The teacher knows nothing: it teaches the form of an answer, and GRPO alone can teach the preference.
        Step("teacher", TeacherConfig(backend="rule_random", prompt="toy_score100")),
        Step("sft_data", SftDataConfig(prompt="toy_score100")),
        Step("sft", SftConfig(model="@toy_model/model")),
        Step("merge", MergeConfig(model="@toy_model/model")),
        Step("grpo", GrpoConfig(reward=reward, sampler=sampler)),
        Step("judge", JudgeConfig()),
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
