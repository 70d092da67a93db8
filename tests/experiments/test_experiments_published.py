"""The published presets: the same figures, and every one of them understood."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from btrm.config import ConfigError
from btrm.plugins import load_object, shipped
from btrm.rewards.config import RewardConfig

FILE = shipped("experiments") / "published.py"
PRESETS = load_object(f"{FILE}:PRESETS")
preset = load_object(f"{FILE}:preset")
extra_args = load_object(f"{FILE}:extra_args")


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


def test_extra_args():
    assert extra_args(preset("hh_v3_group_floor_b01")) == {
        "scale_rewards": "group",
        "beta": "0.01",
        "min_reward_std": "0.02",
    }
    assert extra_args(preset("score100_T20_C10_posclip")) == {}


def test_a_preset_is_a_copy():
    preset("hh_exp1_graded")["MODEL"] = "other"
    assert preset("hh_exp1_graded")["MODEL"] == "Qwen/Qwen2.5-7B-Instruct"


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean hh_exp1_graded"):
        preset("hh_exp1_grade")
