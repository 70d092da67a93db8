"""Anthropic HH-RLHF with Qwen2.5-7B-Instruct: our own presets, on one node of 8 GPUs."""

from __future__ import annotations

from collections.abc import Callable

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

MODEL = "Qwen/Qwen2.5-7B-Instruct"
PROMPT = "hh_score100_v3"
NODE = Resources(nodes=1, gpus=8, cpus=64, mem_gb=512, time_min=24 * 60)
ONE_GPU = Resources(nodes=1, gpus=1, cpus=8, mem_gb=64, time_min=8 * 60)


def _reward() -> RewardConfig:
    return RewardConfig(parser="score100_last", delta_temp=5, delta_neg_clip=1.1, offset=0.693)


def _judged(checkpoints: dict[str, str], base: str) -> tuple[Step, ...]:
    judge = JudgeConfig(base=base, checkpoints=checkpoints, prompt=PROMPT, engine="vllm")
    return (
        Step("judge", judge, ONE_GPU),
        Step("evaluate", EvaluateConfig(bt_temp=5)),
        Step("summarize", SummarizeConfig()),
    )


def baseline() -> Experiment:
    """Return GRPO from the instruct model on the baseline reward, with our defaults."""
    steps = (
        Step("pairs", PairsConfig(dataset="anthropic_hh", prompt=PROMPT)),
        Step("grpo", GrpoConfig(model=MODEL, reward=_reward()), NODE),
        *_judged({"base": MODEL, "grpo": "@grpo/checkpoints/checkpoint-*"}, MODEL),
    )
    return Experiment("hh.baseline", "HH-RLHF, Qwen2.5-7B-Instruct, baseline reward with our defaults", steps)


def warm() -> Experiment:
    """Return the same with a warm-up: Claude judges 1,000 pairs, the student learns those that it orders rightly."""
    teacher = TeacherConfig(backend="anthropic", model="claude-sonnet-4-20250514", prompt=PROMPT, n_pairs=1000)
    steps = (
        Step("pairs", PairsConfig(dataset="anthropic_hh", prompt=PROMPT)),
        Step("teacher", teacher),
        Step("sft_data", SftDataConfig(prompt=PROMPT, filter_correct=True)),
        Step("sft", SftConfig(model=MODEL), NODE),
        Step("merge", MergeConfig(model=MODEL), ONE_GPU),
        Step("grpo", GrpoConfig(reward=_reward()), NODE),
        *_judged(
            {"base": MODEL, "sft": "@merge/model", "grpo": "@grpo/checkpoints/checkpoint-*"},
            "@merge/model",
        ),
    )
    return Experiment("hh.warm", "the same after a warm-up on the answers of an API teacher", steps)


EXPERIMENTS: dict[str, Callable[[], Experiment]] = {"baseline": baseline, "warm": warm}
