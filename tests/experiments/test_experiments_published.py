"""The published presets: the same figures, and every one of them understood."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from btrm.config import ConfigError
from btrm.launch.plan import get_experiment, published_names
from btrm.plugins import load_object, shipped
from btrm.prompts import get_prompt
from btrm.rewards.config import RewardConfig

FILE = shipped("experiments") / "published.py"
PRESETS = load_object(f"{FILE}:PRESETS")
preset = load_object(f"{FILE}:preset")


def test_every_figure_is_the_published_one(shared_data: Path):
    assert json.loads((shared_data / "golden" / "presets.json").read_text()) == PRESETS


def test_there_are_21():
    assert len(PRESETS) == 21


@pytest.mark.parametrize("name", PRESETS)
def test_every_reward_figure_is_a_field_of_ours(name: str):
    figures = {key: value for key, value in preset(name).items() if key == "REWARD_NAME" or key.startswith("BT_")}
    config = RewardConfig.parity(figures)
    assert config.override(f"{key}={value}" for key, value in figures.items()) == config


def test_figures_come_out_as_numbers():
    config = RewardConfig.parity({"BT_DELTA_TEMP": preset("hh_v3_noscale_T2_b01")["BT_DELTA_TEMP"]})
    assert config.delta_temp == 2.0


@pytest.mark.parametrize("name", PRESETS)
def test_every_figure_reaches_a_field_of_the_plan(name: str):
    experiment = get_experiment(name)
    for key, figure in preset(name).items():
        fields = [
            field
            for step in experiment.steps
            for alias, path in published_names(type(step.config)).items()
            if alias == key
            for field in [step.config.by_role("setting", "source", "extent", "runtime")[path]]
        ]
        if key in {"EVAL_PARSER", "EXTRA_ARGS"}:
            assert not fields
        else:
            assert fields and all(same(field, figure) for field in fields), key
    assert get_prompt(experiment.step("judge").config.model_dump()["prompt"]).parser.name == preset(name)["EVAL_PARSER"]


def same(field: object, figure: str) -> bool:
    return float(figure) == field if isinstance(field, int | float) else field == figure


def test_extra_args_reach_their_fields():
    grpo = get_experiment("hh_v3_group_floor_b01").step("grpo").config.model_dump()
    assert (grpo["scale_rewards"], grpo["beta"], grpo["reward_std_floor"]) == ("group", 0.01, 0.02)
    grpo = get_experiment("hh_s5v3_T1_NC2_offset_base").step("grpo").config.model_dump()
    assert grpo["swift"] == {"use_chat_template": "false"}


def test_published_presets_treat_answers_as_published():
    reward = get_experiment("hh_exp2_graded_hardpair").step("grpo").config.model_dump()["reward"]
    assert (reward["unparsed"], reward["weight_on"]) == ("published", "reward")


def test_a_preset_is_a_copy():
    preset("hh_exp1_graded")["MODEL"] = "other"
    assert preset("hh_exp1_graded")["MODEL"] == "Qwen/Qwen2.5-7B-Instruct"


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean hh_exp1_graded"):
        preset("hh_exp1_grade")
