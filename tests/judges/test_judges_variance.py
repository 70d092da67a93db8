"""The variance stage: cells of prompts through the grid's machinery, and tables of them."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import pytest
from judge_stage import RuleEngine, rows, run_stage, stage_run
from test_judges_grid import fake_model

from btrm.config import ConfigError
from btrm.data.toy import toy_pairs
from btrm.judges.variance import VarianceConfig, share_variance, work_variance
from btrm.records import read_pairs, write_pairs
from btrm.runs import Resources
from btrm.stages import prepare
from btrm.submit import main as submit
from btrm.work import share

pytestmark = pytest.mark.usefixtures("rule_engine")

TWO = ["toy_score100", "score100_v1"]
OWN = """
from dataclasses import replace
from btrm.prompts import get_prompt
def mine():
    return replace(get_prompt("toy_score100"), name="mine", template="{context} %s {response}")
"""


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    write_pairs(tmp_path / "validation.pairs.parquet", toy_pairs("validation", 20))
    model = fake_model(tmp_path / "model")
    return {
        "model": str(model),
        "pairs": str(tmp_path / "validation.pairs.parquet"),
        "prompts": TWO,
        "n_pairs": 12,
        "n_bootstrap": 200,
        "n_samples": 3,
    }


def table(root: Path, name: str) -> list[dict[str, str]]:
    with (root / "variance" / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_prompts_are_judged_and_laid_side_by_side(
    rule_engine: type[RuleEngine], tmp_path: Path, values: dict[str, Any]
) -> None:
    done = run_stage("variance", VarianceConfig.build(values), tmp_path / "run")
    assert rule_engine.asked == [12 * 2, 12 * 2] and rule_engine.opened == [values["model"]]
    found = table(tmp_path / "run", "variance.csv")
    assert [(row["dataset"], row["prompt"], row["n_pairs"]) for row in found] == [
        ("validation", prompt, "12") for prompt in TWO
    ]
    assert {row["valid_rate"] for row in found} == {"1"}
    (contrast,) = table(tmp_path / "run", "comparisons.csv")
    assert (contrast["a"], contrast["b"]) == tuple(TWO)
    counts = [int(row["count"]) for row in table(tmp_path / "run", "histograms.csv")]
    assert sum(counts) == len(rows(tmp_path / "run", "variance")) == 2 * 12 * 2 * 3
    assert done.results["choice"]["validation"].startswith("Take ")
    text = (tmp_path / "run/variance/variance.md").read_text()
    assert done.results["choice"]["validation"] in text and "wrong_range_20_both" in text
    assert len(list(read_pairs(tmp_path / "run/variance/pairs.parquet"))) == 12


def test_more_prompts_seeds_and_bounds_ask_only_for_what_is_missing(
    rule_engine: type[RuleEngine], tmp_path: Path, values: dict[str, Any]
) -> None:
    run_stage("variance", VarianceConfig.build(values | {"prompts": TWO[:1]}), tmp_path / "run")
    rule_engine.asked = []
    more = {"prompts": TWO[::-1], "seeds": [0, 1]}
    done = run_stage("variance", VarianceConfig.build(values | more), tmp_path / "run")
    assert done.results["asked_now"] == 12 * 3
    run_stage("variance", VarianceConfig.build(values | more), tmp_path / "fresh")
    assert rows(tmp_path / "run", "variance") == rows(tmp_path / "fresh", "variance")
    found = table(tmp_path / "run", "variance.csv")
    assert found == table(tmp_path / "fresh", "variance.csv")
    assert {row["answers_a_side"] for row in found} == {"6"}
    bounds = {"unc_low": 0, "unc_high": 100, "range_thresholds": [0, 101]}
    done = run_stage("variance", VarianceConfig.build(values | more | bounds), tmp_path / "run")
    assert done.results["asked_now"] == 0
    for row in table(tmp_path / "run", "variance.csv"):
        assert (row["wrong_zone_both"], row["wrong_range_0_both"], row["wrong_range_101_any"]) == ("1", "1", "0")


def test_a_prompt_that_was_changed_is_asked_again(tmp_path: Path, values: dict[str, Any]) -> None:
    own = tmp_path / "own.py"
    own.write_text(OWN % "is answered")
    config = VarianceConfig.build(values | {"prompts": ["toy_score100", f"{own}:mine"]})
    run_stage("variance", config, tmp_path / "run")
    assert prepare("variance", config, Resources(), tmp_path / "run").done
    own.write_text(OWN % "gets the answer")
    for name in [name for name in sys.modules if name.startswith("btrm_user_")]:  # as in another process
        del sys.modules[name]
    assert prepare("variance", config, Resources(), tmp_path / "run").note == "extend"
    assert run_stage("variance", config, tmp_path / "run").results["asked_now"] == 12
    assert len(rows(tmp_path / "run", "variance")) == 2 * 12 * 2 * 3


def test_elements_share_the_prompts(tmp_path: Path, values: dict[str, Any]) -> None:
    config, run = VarianceConfig.build(values), stage_run(tmp_path / "run", "variance")
    units = work_variance(config, run)
    assert sum(sum(share_variance(config, run, share(units, element, 3))) for element in range(3)) == 2 * 12
    assert run_stage("variance", config, tmp_path / "run").results["asked_now"] == 0
    run_stage("variance", config, tmp_path / "calm")
    assert rows(tmp_path / "run", "variance") == rows(tmp_path / "calm", "variance")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": ["score100"]}, "did you mean"),
        ({"prompts": ["toy_score100", "toy_score100"]}, "called alike"),
        ({"prompts": ["toy_score100", "score5_v2"], "unc_low": 2}, "several scales"),
        ({"unc_low": 90}, "lies above unc_high"),
        ({"method": "greedy"}, "gives one answer"),
        ({"method": "expected"}, "gives one answer"),
    ],
)
def test_what_cannot_be_compared_is_refused(values: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        VarianceConfig.build(values | change)


def test_the_usual_bounds_are_those_of_a_prompts_scale() -> None:
    config = VarianceConfig(prompts=("toy_score100", "score5_v2"))
    hundred, five = config.specs
    assert (config.zone(hundred), config.zone(five)) == ((20, 80), (2, 4))
    assert (config.ranges(hundred), config.ranges(five)) == ((5, 10, 20), (0.2, 0.4, 0.8))


def test_flags_of_the_stage(tmp_path: Path, values: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--prompts", ",".join(TWO), "--pairs", values["pairs"], "--model", values["model"]]
    words += ["--unc-low", "30", "--range-thresholds", "5,10", "--dry-run", "--site", "local"]
    assert submit(["variance", "--run", str(tmp_path / "run"), *words]) == 0
    told = capsys.readouterr().out
    assert '"unc_low": 30.0' in told and '"score100_v1"' in told and "new" in told


@pytest.mark.usefixtures("rule_engine")
def test_it_ends_with_the_prompt_to_take_and_where_the_figures_are(
    tmp_path: Path, values: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--prompts", ",".join(TWO), "--pairs", values["pairs"], "--model", values["model"], "--gpus", "0"]
    (tmp_path / "run").mkdir()
    words += ["--n-pairs", "12", "--n-bootstrap", "200", "--name", "which", "--site", "local"]
    assert submit(["variance", "--run", str(tmp_path / "run"), *words]) == 0
    told, directory = capsys.readouterr().out, tmp_path / "run" / "which"
    (line,) = [line for line in told.splitlines() if line.startswith("on validation: Take ")]
    assert line.removeprefix("on validation: ") in (directory / "variance.md").read_text()
    assert told.endswith(f"every figure: {directory / 'variance.md'}\n")
