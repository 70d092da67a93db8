"""Anthropic HH-RLHF with Qwen2.5-7B-Instruct: our own presets, on one node of 8 GPUs."""

from __future__ import annotations

from collections.abc import Callable

from btrm.data.pairs import PairsConfig
from btrm.judges.grid import JudgeConfig
from btrm.launch.plan import Experiment, Step
from btrm.metrics.evaluate import EvaluateConfig
from btrm.report.summary import SummarizeConfig
from btrm.rewards.config import RewardConfig
from btrm.runs import Resources
from btrm.train.grpo import GrpoConfig

MODEL = "Qwen/Qwen2.5-7B-Instruct"
PROMPT = "hh_score100_v3"
NODE = Resources(nodes=1, gpus=8, cpus=64, mem_gb=512, time_min=24 * 60)
ONE_GPU = Resources(nodes=1, gpus=1, cpus=8, mem_gb=64, time_min=8 * 60)


def baseline() -> Experiment:
    """Return GRPO from the instruct model on the baseline reward, with our defaults."""
    reward = RewardConfig(parser="score100_last", delta_temp=5, delta_neg_clip=1.1, offset=0.693)
    steps = (
        Step("pairs", PairsConfig(dataset="anthropic_hh", prompt=PROMPT)),
        Step("grpo", GrpoConfig(model=MODEL, reward=reward), NODE),
        Step(
            "judge",
            JudgeConfig(
                base=MODEL,
                checkpoints={"base": MODEL, "grpo": "@grpo/checkpoints/checkpoint-*"},
                prompt=PROMPT,
                engine="vllm",
            ),
            ONE_GPU,
        ),
        Step("evaluate", EvaluateConfig(bt_temp=5)),
        Step("summarize", SummarizeConfig()),
    )
    return Experiment("hh.baseline", "HH-RLHF, Qwen2.5-7B-Instruct, baseline reward with our defaults", steps)


EXPERIMENTS: dict[str, Callable[[], Experiment]] = {"baseline": baseline}
