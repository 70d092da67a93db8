"""The published run presets by name, figure by figure, under their published names.

Figures stand as they were published, text and all. Two are not what their names say: `score5_baseline_T1_symclip` has
both clips at 0, which is off; and `--min_reward_std`, described as a filter, worked as a floor under a group's std.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from btrm.config import ConfigError, nearest
from btrm.data.pairs import PairsConfig
from btrm.judges.grid import JudgeConfig
from btrm.launch.plan import Experiment, Step, preset_assignments
from btrm.metrics.evaluate import EvaluateConfig
from btrm.report.summary import SummarizeConfig
from btrm.rewards.config import RewardConfig
from btrm.runs import Resources
from btrm.train.grpo import GrpoConfig

Figures = dict[str, str]
NODE = Resources(nodes=1, gpus=8, cpus=64, mem_gb=512, time_min=24 * 60)
ONE_GPU = Resources(nodes=1, gpus=1, cpus=8, mem_gb=64, time_min=8 * 60)

_QWEN25 = {"MODEL": "Qwen/Qwen2.5-7B-Instruct"}
_QWEN3 = {"MODEL": "Qwen/Qwen3-8B"}
_HH = {"EVAL_DATASET": "anthropic_hh"}
_SCALE100 = {"EVAL_UNC_LOW": "20", "EVAL_UNC_HIGH": "80"}
_STEPS_6000 = {"MAX_STEPS": "6000", "SAVE_STEPS": "500"}
_STD_005 = {"EXTRA_ARGS": "--min_reward_std 0.05"}
_STD_01 = {"EXTRA_ARGS": "--min_reward_std 0.1"}


def _sampling(tokens: str, learning_rate: str = "5e-6") -> Figures:
    """Return how completions are sampled and learnt from."""
    return {
        "TEMPERATURE": "1.0",
        "NUM_GENERATIONS": "8",
        "MAX_COMPLETION_LENGTH": tokens,
        "MAX_NEW_TOKENS": tokens,
        "LEARNING_RATE": learning_rate,
    }


def _reward(name: str, parser: str, **knobs: str) -> Figures:
    """Return a reward with its BT_* knobs."""
    return {"REWARD_NAME": name, "BT_SCORE_PARSER": parser, **{f"BT_{key}": value for key, value in knobs.items()}}


def _baseline(parser: str, temp: str, clip: str, neg_clip: str, scale: str = "1", **knobs: str) -> Figures:
    """Return the baseline reward; clips are in units of margin / temperature, 0 = off."""
    clips = {"DELTA_TEMP": temp, "DELTA_CLIP": clip, "DELTA_NEG_CLIP": neg_clip, "REWARD_SCALE": scale}
    return _reward("bt_pointwise_baseline", parser, **clips, **knobs)


def _graded(name: str) -> Figures:
    grades = {"GRADE_THRESH": "0.1", "REWARD_LOW": "1.2", "REWARD_HIGH": "1.4", "REWARD_WRONG": "0.0"}
    return _reward(name, "score100_last", SCORE_TEMP="20", **grades, REWARD_PARSE_FAIL="-0.5")


def _eval(prompt: str, parser: str, bt_temp: str) -> Figures:
    return {"EVAL_PROMPT": prompt, "EVAL_PARSER": parser, "EVAL_BT_TEMP": bt_temp}


_HARDMINE = {"REWARD_NAME": "bt_pointwise_baseline_hardmine"}
_HH_V3 = _HH | _eval("hh_score100_v3", "score100_last", "5")
_HH_SCOREONLY = _HH | _eval("hh_score100_scoreonly", "score100_last", "5")
_HH_V3_T5_NC11 = _baseline("score100_last", "5", "0", "1.1", REWARD_OFFSET="0.693")
_SFF_T20_C10 = _baseline("score100_first", "20", "10", "0")
_SFF_V1_T20 = _eval("score100_v1", "score100_first", "20") | _SCALE100


def _noscale(temp: str) -> Figures:
    """Return a reward that is left unscaled by the group's std and is scaled by hand."""
    return _baseline("score100_last", temp, "0", "1.1", scale="14.4", REWARD_OFFSET="10.0")


PRESETS: dict[str, Figures] = {
    # Anthropic HH, graded and margin rewards
    "hh_exp1_graded": (_QWEN25 | _graded("bt_pointwise_graded") | _sampling("128") | _STEPS_6000 | _STD_005 | _HH_V3),
    "hh_exp2_graded_hardpair": (
        _QWEN25
        | _graded("bt_pointwise_graded_hardpair")
        | {"BT_HARD_TAU": "1.0"}
        | _sampling("128")
        | _STEPS_6000
        | _STD_005
        | _HH_V3
    ),
    "hh_exp3_scoreonly_graded": (
        _QWEN25 | _graded("bt_pointwise_graded") | _sampling("16") | _STEPS_6000 | _STD_005 | _HH_SCOREONLY
    ),
    "hh_exp4_scoreonly_hardmargin": (
        _QWEN25
        | _reward("bt_hard_margin", "score100_last", SCORE_TEMP="20", MARGIN_GAMMA="0.5", MARGIN_TEMP="1.0")
        | {"BT_HARD_TAU": "1.0", "BT_REWARD_PARSE_FAIL": "-1.0"}
        | _sampling("16")
        | _STEPS_6000
        | _STD_005
        | _HH_SCOREONLY
    ),
    "hh_v3_binary_advfilt_base": (
        _QWEN25 | _reward("bt_pointwise_binary", "score100_last") | _sampling("128") | _STD_01 | _HH_V3 | _SCALE100
    ),
    # Anthropic HH, baseline reward
    "hh_s5v3_T1_NC2_offset_base": (
        _QWEN25
        | _baseline("score5_last", "1", "0", "2", REWARD_OFFSET="0.693")
        | _sampling("128")
        | {"EXTRA_ARGS": "--use_chat_template false"}
        | _HH
        | _eval("hh_score5_v3", "score5_last", "1")
        | {"EVAL_UNC_LOW": "2.0", "EVAL_UNC_HIGH": "4.0"}
    ),
    "hh_score100_T20_C10_posclip": (_SFF_T20_C10 | _HH | _eval("hh_score100_v1", "score100_first", "20") | _SCALE100),
    "hh_v3_T5_NC1.1_advfilt_qwen3": (_QWEN3 | _HH_V3_T5_NC11 | _sampling("512") | _STD_01 | _HH_V3 | _SCALE100),
    "hh_v3_T5_NC1.1_advfilt_qwen3_lr5e5": (
        _QWEN3
        | _HH_V3_T5_NC11
        | _sampling("512", learning_rate="5e-5")
        | {"MAX_STEPS": "4000"}
        | _STD_01
        | _HH_V3
        | _SCALE100
    ),
    "hh_v3_T5_NC1.1_noscale_base": (
        _QWEN25 | _noscale("5") | _sampling("128") | {"EXTRA_ARGS": "--scale_rewards none"} | _HH_V3 | _SCALE100
    ),
    "hh_v3_T5_NC1.1_offset_advfilt_base": (_QWEN25 | _HH_V3_T5_NC11 | _sampling("128") | _STD_01 | _HH_V3 | _SCALE100),
    "hh_v3_T5_NC1.1_offset_base": _QWEN25 | _HH_V3_T5_NC11 | _sampling("128") | _HH_V3 | _SCALE100,
    "hh_v3_T5_NC2_offset_base": (
        _QWEN25 | _HH_V3_T5_NC11 | {"BT_DELTA_NEG_CLIP": "2"} | _sampling("128") | _HH_V3 | _SCALE100
    ),
    "hh_v3_group_floor_b01": (
        _QWEN25
        | _HH_V3_T5_NC11
        | _sampling("128")
        | {"EXTRA_ARGS": "--scale_rewards group --beta 0.01 --min_reward_std 0.02"}
        | _HH_V3
        | _SCALE100
    ),
    "hh_v3_noscale_T1_b01": (
        _QWEN25
        | _noscale("1")
        | _sampling("128")
        | {"EXTRA_ARGS": "--scale_rewards none --beta 0.01"}
        | _HH_V3
        | {"EVAL_BT_TEMP": "1"}
        | _SCALE100
    ),
    "hh_v3_noscale_T2_b01": (
        _QWEN25
        | _noscale("2")
        | _sampling("128")
        | {"EXTRA_ARGS": "--scale_rewards none --beta 0.01"}
        | _HH_V3
        | {"EVAL_BT_TEMP": "2"}
        | _SCALE100
    ),
    # summarize_from_feedback
    "score100_T10_C6_posclip": (
        _baseline("score100_first", "10", "6", "0") | _eval("score100_v1", "score100_first", "10") | _SCALE100
    ),
    "score100_T20_C10_posclip": _SFF_T20_C10 | _SFF_V1_T20,
    "score100_T20_C10_posclip_hardmine": (
        _SFF_T20_C10 | _HARDMINE | {"BT_HARD_TAU": "0.25", "BT_HARD_LAMBDA": "0.5"} | _SFF_V1_T20
    ),
    "score100_T20_C10_posclip_hardmine_tau0.25_lam1.0_eps0.5": (
        _SFF_T20_C10
        | _HARDMINE
        | {"BT_HARD_TAU": "0.25", "BT_HARD_LAMBDA": "1.0", "BT_HARD_EPS": "0.5"}
        | {"MAX_STEPS": "8000", "SAVE_STEPS": "500", "LOGGING_STEPS": "20", "LEARNING_RATE": "5e-6"}
        | _SFF_V1_T20
    ),
    "score5_baseline_T1_symclip": (
        _baseline("score5_last", "1", "0", "0")
        | _eval("score5_v1", "score5_last", "1")
        | {"EVAL_UNC_LOW": "2", "EVAL_UNC_HIGH": "4"}
    ),
}


def preset(name: str) -> Figures:
    """Return a preset's figures; raise ConfigError with the nearest valid name."""
    if name not in PRESETS:
        raise ConfigError(f"preset {name!r}: no such preset{nearest(name, PRESETS)}")
    return dict(PRESETS[name])


def plan(name: str) -> Experiment:
    """Return a preset as a whole plan, with the published treatment of unparsed answers and pair weights.

    GRPO starts from the model itself; on summarize_from_feedback where no data set is named.
    """
    figures = preset(name)
    model = figures.get("MODEL", "Qwen/Qwen2.5-7B-Instruct")
    dataset = figures.get("EVAL_DATASET", "summarize_from_feedback")
    prompt, parser = figures["EVAL_PROMPT"], figures["BT_SCORE_PARSER"]
    steps = (
        Step("pairs", PairsConfig(dataset=dataset, prompt=prompt)),
        Step("grpo", GrpoConfig(model=model, reward=RewardConfig.parity({"parser": parser})), NODE),
        Step(
            "judge",
            JudgeConfig(
                base=model,
                checkpoints={"base": model, "grpo": "@grpo/checkpoints/checkpoint-*"},
                prompt=prompt,
                engine="vllm",
            ),
            ONE_GPU,
        ),
        Step("evaluate", EvaluateConfig()),
        Step("summarize", SummarizeConfig()),
    )
    experiment = Experiment(f"published.{name}", f"{figures['REWARD_NAME']}, {prompt}", steps)
    return experiment.override(preset_assignments(figures, name))


EXPERIMENTS: dict[str, Callable[[], Experiment]] = {name: partial(plan, name) for name in PRESETS}
