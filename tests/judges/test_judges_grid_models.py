"""The grid on real, tiny models: one load for all adapters, the same answers whatever the order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from btrm.judges.grid import JudgeConfig, share_judge, work_judge
from btrm.publishing import write_json
from btrm.records import read_judgements
from btrm.runs import Resources, RunManifest, RunPaths, StageRun
from btrm.stages import execute, prepare
from btrm.work import share


def judge(root: Path, **values: Any) -> RunManifest:
    config = JudgeConfig.build({"max_new_tokens": 8, "seeds": [0, 1], "dtype": "float32", **values})
    prepared = prepare("judge", config, Resources(), root)
    write_json(prepared.directory / "stage.json", prepared.request.model_dump(mode="json"))
    return execute(prepared.directory / "stage.json")


def rows(root: Path) -> list[dict[str, Any]]:
    return read_judgements(root / "judge" / "judgements.parquet").to_pylist()


@pytest.mark.slow
def test_one_grid_over_a_model_and_its_adapters(
    tiny_model: Path, adapters: Path, pairs_file: Path, tmp_path: Path
) -> None:
    checkpoints = {"base": str(tiny_model), "grpo": f"{adapters}/checkpoint-*"}
    manifest = judge(tmp_path, base=str(tiny_model), pairs=str(pairs_file), checkpoints=checkpoints)
    assert manifest.results["checkpoints"] == ["base", "checkpoint-5", "checkpoint-10", "checkpoint-100"]
    found = rows(tmp_path)
    assert len(found) == 4 * 2 * 12 * 2 * 2
    assert len({(r["judge"], r["seed"], r["label_id"], r["side"], r["sample"]) for r in found}) == len(found)
    labels = manifest.results["checkpoints"]
    texts = {label: [r["completion"] for r in found if r["judge"] == label] for label in labels}
    assert len({tuple(t) for t in texts.values()}) == 4


@pytest.mark.slow
def test_a_share_loads_each_model_once_for_all_its_cells(
    tiny_model: Path, adapters: Path, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two elements judge a model and its three adapters at two seeds; the answers are those of one process."""
    from transformers import AutoModelForCausalLM

    loads, load = list[str](), AutoModelForCausalLM.from_pretrained

    def counted(model: str, **options: Any) -> Any:
        loads.append(model)
        return load(model, **options)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", counted)
    checkpoints = {"base": str(tiny_model), "grpo": f"{adapters}/checkpoint-*"}
    values = {"base": str(tiny_model), "pairs": str(pairs_file), "checkpoints": checkpoints, "n_pairs": 5}
    config = JudgeConfig.build({"max_new_tokens": 8, "seeds": [0, 1], "dtype": "float32", "part_pairs": 4, **values})
    directory = tmp_path / "run" / "judge"
    run = StageRun(RunPaths(tmp_path / "run"), "judge", directory, Resources(), directory / "stage.json")
    units = work_judge(config, run)
    assert len(units) == 8
    for element in (0, 1):
        assert sum(share_judge(config, run, share(units, element, 2))) == 20
        assert loads == [str(tiny_model)] * (element + 1)
    assert judge(tmp_path / "run", **values, part_pairs=4).results["asked_now"] == 0
    assert len(loads) == 2
    judge(tmp_path / "calm", **values)
    assert rows(tmp_path / "run") == rows(tmp_path / "calm")


@pytest.mark.slow
def test_cells_of_one_pair_that_are_asked_together_answer_as_alone(
    tiny_model: Path, pairs_file: Path, tmp_path: Path
) -> None:
    """The same prompts stand side by side then, under other seeds."""
    values = {"base": None, "pairs": str(pairs_file), "checkpoints": {"base": str(tiny_model)}, "n_pairs": 1}
    judge(tmp_path / "together", **values, seeds=[0, 1, 2])
    judge(tmp_path / "alone", **values, seeds=[0, 1, 2], part_pairs=1)
    assert rows(tmp_path / "together") == rows(tmp_path / "alone")
    assert len({row["completion"] for row in rows(tmp_path / "alone")}) == 12
