from __future__ import annotations

import json
from pathlib import Path

from btrm.data.pairs import PairsConfig
from btrm.hub import HubItem
from btrm.judges.grid import JudgeConfig
from btrm.launch.offline import hub_items, missing_offline
from btrm.launch.plan import Experiment, Step, get_experiment


def test_models_and_data_of_every_step_are_found_once() -> None:
    found = hub_items(get_experiment("hh.baseline"))
    assert [str(item) for item in found] == ["dataset Anthropic/hh-rlhf", "model Qwen/Qwen2.5-7B-Instruct"]
    assert [*found.values()] == [["pairs.dataset"], ["grpo.model", "judge.checkpoints", "judge.base"]]


def test_files_instead_of_the_hub_and_models_of_earlier_steps_need_nothing(tmp_path: Path) -> None:
    (tmp_path / "org/local").mkdir(parents=True)  # the current folder: a path wins over a hub's name
    pairs = PairsConfig(dataset="anthropic_hh", splits=("train",), data_files={"train": "x.jsonl"})
    judge = JudgeConfig(base="@merge/model", checkpoints={"base": "org/local"}, prompt="hh_score100_v1")
    assert hub_items(Experiment("e", "", (Step("pairs", pairs), Step("judge", judge)))) == {}
    assert hub_items(get_experiment("toy.demo")) == {}


def test_what_is_missing_names_the_command_that_brings_it(tmp_path: Path) -> None:
    experiment = get_experiment("hh.baseline")
    lines = missing_offline(experiment, {"HF_HOME": str(tmp_path)})
    assert len(lines) == 2 and all("btrm prefetch --experiment hh.baseline" in line for line in lines)
    assert lines[1].startswith(
        "grpo.model, judge.checkpoints, judge.base: model Qwen/Qwen2.5-7B-Instruct: not whole in"
    )
    (line, _) = missing_offline(experiment, {"HF_HOME": str(tmp_path)}, None, "my study.py:f", "own.toml")
    assert line.endswith("btrm prefetch --experiment 'my study.py:f' --site own.toml")
    folder = tmp_path / "hub/datasets--Anthropic--hh-rlhf"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("abc")
    (folder / "snapshots/abc").mkdir(parents=True)
    (folder / "snapshots/abc/train.jsonl.gz").write_text("x")
    assert len(missing_offline(experiment, {"HF_HOME": str(tmp_path)})) == 1


def test_complete_steps_are_left_out(tmp_path: Path) -> None:
    from btrm.runs import RunManifest

    values = {name: {} for name in ("config", "inputs", "outputs", "results", "packages")}
    texts = dict.fromkeys(("fingerprint", "host", "started", "finished"), "")
    manifest = RunManifest.build(
        {"stage": "pairs", "name": "pairs", "git": None, "image": None, "job_ids": [], "seconds": 1.0, "resources": {}}
        | values
        | texts
    )
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs/manifest.json").write_text(json.dumps(manifest.model_dump(mode="json")))
    found = hub_items(get_experiment("hh.baseline"), tmp_path)
    assert [*found] == [HubItem("model", "Qwen/Qwen2.5-7B-Instruct")]
