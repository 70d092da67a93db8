from __future__ import annotations

from pathlib import Path

import pytest

from btrm.config import ConfigError
from btrm.launch.plan import (
    DEFAULT_EXPERIMENT,
    Step,
    experiment_table,
    get_experiment,
    preset_assignments,
    read_preset,
)
from btrm.metrics.evaluate import EvaluateConfig
from btrm.runs import RunPaths
from btrm.stage_table import STAGES


@pytest.mark.parametrize("name", experiment_table())
def test_every_experiment_is_whole(name: str, tmp_path: Path) -> None:
    experiment = get_experiment(name)
    assert experiment.name == name
    assert all(step.stage in STAGES for step in experiment.steps)
    assert experiment.problems(RunPaths(tmp_path)) == []


@pytest.mark.parametrize(
    "name", ["../../evil", "/evil", "a/b", "judge.commit", "-x", ".jobs", "control", "patrol", "a b"]
)
def test_a_step_is_not_named_what_is_no_folder_of_the_run(name: str) -> None:
    with pytest.raises(ConfigError, match=r"a name has letters, digits, _ and -"):
        Step("evaluate", EvaluateConfig(), name=name)


def test_the_default_experiment_has_a_grpo_step() -> None:
    assert get_experiment(DEFAULT_EXPERIMENT).step("grpo").needs.gpus == 8


def test_an_experiment_by_short_name_and_by_path(tmp_path: Path) -> None:
    assert get_experiment("demo").name == "toy.demo"
    file = tmp_path / "mine.py"
    file.write_text("import btrm.launch.plan as p\n\ndef mine():\n    return p.Experiment('mine', 'mine', ())\n")
    assert get_experiment(f"{file}:mine").name == "mine"
    with pytest.raises(ConfigError, match=r"did you mean toy\.demo\?"):
        get_experiment("toy.demoo")


def test_overrides_go_to_a_step_or_by_published_name_to_all_that_have_it() -> None:
    changed = get_experiment("toy.demo").override(["grpo.num_generations=4", "BT_DELTA_TEMP=5", "EVAL_BT_TEMP=7"])
    values = {step.key: step.config.model_dump() for step in changed.steps}
    assert values["grpo"]["num_generations"] == 4
    assert values["grpo"]["reward"]["delta_temp"] == 5
    assert values["evaluate"]["bt_temp"] == 7


def test_two_experiments_of_one_process_share_nothing() -> None:
    get_experiment("toy.demo").override(["grpo.learning_rate=9", "BT_DELTA_TEMP=1"])
    fresh = get_experiment("toy.demo").step("grpo").config.model_dump()
    assert fresh["learning_rate"] != 9 and fresh["reward"]["delta_temp"] != 1


def test_all_wrong_overrides_stand_in_one_message() -> None:
    with pytest.raises(ConfigError) as error:
        get_experiment("toy.demo").override(["grpo.num_generation=4", "gpro.seed=1", "grpo.max_steps=0"])
    for part in ("num_generations", "gpro.seed", "max_steps"):
        assert part in str(error.value)


def test_an_input_that_no_step_makes_is_named(tmp_path: Path) -> None:
    experiment = get_experiment("toy.demo").override(["grpo.rows=@elsewhere/rows.jsonl"])
    assert experiment.problems(RunPaths(tmp_path)) == ["grpo: @elsewhere/rows.jsonl: no earlier step makes it"]


def test_a_preset_file_holds_published_names(tmp_path: Path) -> None:
    file = tmp_path / "a.env"
    file.write_text('BT_DELTA_TEMP=5\nEXTRA_ARGS="--scale_rewards none --beta 0.01 --min_reward_std 0.1 --warmup 3"\n')
    assert read_preset(file) == [
        "BT_DELTA_TEMP=5",
        "grpo.scale_rewards=none",
        "grpo.beta=0.01",
        "grpo.reward_std_floor=0.1",
        "grpo.swift.warmup=3",
    ]
    with pytest.raises(ConfigError, match="BT_DELTA_TMP: no such published name; did you mean BT_DELTA_TEMP"):
        preset_assignments({"BT_DELTA_TMP": "1"}, "x")
    with pytest.raises(ConfigError, match="--flag value pairs"):
        preset_assignments({"EXTRA_ARGS": "--beta"}, "x")
    with pytest.raises(ConfigError, match="is read by score100_last"):
        preset_assignments({"EVAL_PROMPT": "hh_score100_v3", "EVAL_PARSER": "score100_first"}, "x")
    with pytest.raises(ConfigError, match="no such file"):
        read_preset(tmp_path / "none.env")
