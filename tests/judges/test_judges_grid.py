"""The grid's bookkeeping, with a rule in the engine's place and folders that only look like models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import judge_stage
import pytest
from judge_stage import RuleEngine, rows, run_stage

from btrm.config import ConfigError
from btrm.judges.adapter import check_adapter
from btrm.judges.grid import JudgeConfig
from btrm.runs import Resources, RunManifest
from btrm.stage_table import get_stage
from btrm.stages import settings_problems


def header(shapes: dict[str, list[int]]) -> bytes:
    text = json.dumps({k: {"dtype": "F32", "shape": s, "data_offsets": [0, 0]} for k, s in shapes.items()}).encode()
    return len(text).to_bytes(8, "little") + text


def fake_model(folder: Path, width: int = 8) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(header({"model.q_proj.weight": [width, width]}))
    return folder


def fake_adapter(folder: Path, base: Path, width: int = 8, **config: Any) -> Path:
    folder.mkdir(parents=True)
    settings = {"peft_type": "LORA", "r": 4, "base_model_name_or_path": str(base), **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    name = "base_model.model.model.q_proj.lora_{}.weight"
    (folder / "adapter_model.safetensors").write_bytes(
        header({name.format("A"): [4, width], name.format("B"): [width, 4]})
    )
    return folder


def config(tmp_path: Path, pairs: Path, **values: Any) -> dict[str, Any]:
    model = tmp_path / "model"
    if not model.exists():
        fake_model(model)
    checkpoints = {"base": str(model), "sft": str(model)}
    defaults = {"base": str(model), "pairs": str(pairs), "n_pairs": 6, "seeds": [0, 1], "checkpoints": checkpoints}
    return {**defaults, **values}


def judge(tmp_path: Path, pairs: Path, root: str = "run", **values: Any) -> RunManifest:
    return run_stage("judge", JudgeConfig.build(config(tmp_path, pairs, **values)), tmp_path / root)


def test_each_row_key_once_and_each_model_once(rule_engine: type[RuleEngine], tmp_path: Path, pairs_file: Path) -> None:
    judge(tmp_path, pairs_file)
    found = rows(tmp_path / "run")
    keys = {(r["judge"], r["seed"], r["label_id"], r["side"], r["sample"]) for r in found}
    assert len(found) == len(keys) == 2 * 2 * 6 * 2 * 2
    assert rule_engine.opened == [str(tmp_path / "model")]


@pytest.mark.parametrize(
    "more", [{"n_pairs": 12}, {"seeds": [0, 1, 2]}, {"n_pairs": None, "seeds": [2, 1, 0], "part_pairs": 5}]
)
def test_an_extension_asks_for_what_is_missing_and_equals_a_fresh_run(
    rule_engine: type[RuleEngine], tmp_path: Path, pairs_file: Path, more: dict[str, Any]
) -> None:
    judge(tmp_path, pairs_file)
    before = len(rows(tmp_path / "run"))
    rule_engine.asked = []
    judge(tmp_path, pairs_file, **more)
    extended = rows(tmp_path / "run")
    assert sum(rule_engine.asked) * 2 == len(extended) - before
    judge(tmp_path, pairs_file, root="fresh", **more)
    assert extended == rows(tmp_path / "fresh")


@pytest.mark.usefixtures("rule_engine")
@pytest.mark.parametrize(("n_pairs", "names"), [(6, ["other", "test"]), (3, ["other, test"])])
def test_the_log_names_the_data_sets_that_are_judged(
    tmp_path: Path, pairs_file: Path, caplog: pytest.LogCaptureFixture, n_pairs: int, names: list[str]
) -> None:
    sets, one = {"test": str(pairs_file), "other": str(pairs_file)}, {"base": str(tmp_path / "model")}
    values = {**config(tmp_path, pairs_file, checkpoints=one, n_pairs=n_pairs, part_pairs=6), "pairs": sets}
    with caplog.at_level("INFO"):
        run_stage("judge", JudgeConfig.build(values), tmp_path / "run")
    told = [record.getMessage() for record in caplog.records if record.getMessage().startswith("judging")]
    assert told == [f"judging: base with toy_score100 on {of_batch}" for of_batch in names]


def test_fewer_pairs_are_a_cut(rule_engine: type[RuleEngine], tmp_path: Path, pairs_file: Path) -> None:
    judge(tmp_path, pairs_file)
    rule_engine.asked = []
    judge(tmp_path, pairs_file, n_pairs=3, seeds=[1])
    assert rule_engine.asked == []
    judge(tmp_path, pairs_file, root="fresh", n_pairs=3, seeds=[1])
    assert rows(tmp_path / "run") == rows(tmp_path / "fresh")


@pytest.mark.slow
@pytest.mark.parametrize("kill_after", [1, 2, 4])
def test_killed_anywhere_and_run_again_nothing_is_lost_or_doubled(
    rule_engine: type[RuleEngine], tmp_path: Path, pairs_file: Path, kill_after: int
) -> None:
    values = config(tmp_path, pairs_file, part_pairs=3)
    (tmp_path / "config.json").write_text(json.dumps(values))
    script = [sys.executable, judge_stage.__file__, str(tmp_path / "run"), "config.json", str(kill_after)]
    assert subprocess.run(script, cwd=tmp_path, check=False).returncode == -9
    judge(tmp_path, pairs_file, part_pairs=3)
    assert len(rule_engine.asked) == 4 - (kill_after - 1)
    judge(tmp_path, pairs_file, root="fresh")
    assert rows(tmp_path / "run") == rows(tmp_path / "fresh")


def test_globbed_checkpoints_go_by_number(rule_engine: type[RuleEngine], tmp_path: Path, pairs_file: Path) -> None:
    base = fake_model(tmp_path / "model")
    for step in (100, 50, 5):
        fake_adapter(tmp_path / "grpo" / f"checkpoint-{step}", base)
    found = judge(tmp_path, pairs_file, checkpoints={"grpo": f"{tmp_path}/grpo/checkpoint-*"})
    assert found.results["checkpoints"] == ["checkpoint-5", "checkpoint-50", "checkpoint-100"]
    assert {r["adapter_hash"] is None for r in rows(tmp_path / "run")} == {False}
    assert rule_engine.opened == [str(base)]


def test_changed_weights_under_an_old_label_are_refused(
    rule_engine: type[RuleEngine], tmp_path: Path, pairs_file: Path
) -> None:
    other = fake_model(tmp_path / "other")
    judge(tmp_path, pairs_file, checkpoints={"a": str(other)})
    (other / "config.json").write_text('{"changed": 1}')
    with pytest.raises(ConfigError, match="judged with other weights"):
        judge(tmp_path, pairs_file, checkpoints={"a": str(other)})
    assert len(rule_engine.opened) == 1


def test_what_is_no_checkpoint_is_refused_all_at_once(
    rule_engine: type[RuleEngine], tmp_path: Path, pairs_file: Path
) -> None:
    base, other = fake_model(tmp_path / "model"), fake_model(tmp_path / "wide", width=16)
    (tmp_path / "empty").mkdir()
    hollow = fake_adapter(tmp_path / "hollow", base)
    (hollow / "adapter_model.safetensors").unlink()
    checkpoints = {
        "empty": str(tmp_path / "empty"),
        "hollow": str(hollow),
        "named": str(fake_adapter(tmp_path / "named", other, width=16)),
        "shaped": str(fake_adapter(tmp_path / "shaped", base, width=16)),
        "ia3": str(fake_adapter(tmp_path / "ia3", base, peft_type="IA3")),
    }
    with pytest.raises(ConfigError) as error:
        judge(tmp_path, pairs_file, checkpoints=checkpoints)
    lines = str(error.value).splitlines()
    assert len(lines) == len(checkpoints)
    assert all(any(line.startswith(f"checkpoints: {label}: ") for line in lines) for label in checkpoints)
    assert rule_engine.opened == []


@pytest.mark.parametrize("stage", ["judge", "variance"])
def test_the_gpus_of_an_element_are_those_that_its_model_uses(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, stage: str
) -> None:
    def told(gpus: int, **values: Any) -> list[str]:
        config = get_stage(stage).config.build(values)
        return settings_problems(stage, config, Resources(gpus=gpus), tmp_path, stage)

    four = {"engine": "vllm", "tensor_parallel": 4}
    assert told(0) == told(1) == told(4, **four) == [] and not caplog.records
    assert told(2, **four) == [f"{stage}: tensor_parallel 4: an element has --gpus 2; take --gpus 4"]
    assert told(8) == [] and "of --gpus 8 only 1 will work" in caplog.text
    with pytest.raises(
        ConfigError, match="tensor_parallel 2: transformers takes one GPU for a model; take engine vllm"
    ):
        told(2, tensor_parallel=2)
    with pytest.raises(ConfigError, match="cells_per_gpu 2: a model on 4 GPUs shares none"):
        told(4, **four, cells_per_gpu=2)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"modules_to_save": ["lm_head", "embed_tokens"]}, "lm_head, embed_tokens"),
        ({"trainable_token_indices": [3]}, "single tokens"),
        ({"bias": "all"}, "biases"),
    ],
)
def test_an_adapter_that_would_change_the_base_for_others_is_refused(
    tmp_path: Path, changed: dict[str, Any], told: str
) -> None:
    base = fake_model(tmp_path / "model")
    usual = {"modules_to_save": [], "bias": "none", "trainable_token_indices": None}
    assert check_adapter(fake_adapter(tmp_path / "usual", base, **usual), str(base)) == 4
    with pytest.raises(ConfigError, match=f"beside its LoRA it changes {told}, .*merge it first"):
        check_adapter(fake_adapter(tmp_path / "other", base, **{**usual, **changed}), str(base))


@pytest.mark.parametrize("kept", [0, 4, 40, -1])
def test_weights_that_are_half_there_are_refused(
    rule_engine: type[RuleEngine], tmp_path: Path, pairs_file: Path, kept: int
) -> None:
    lora = fake_adapter(tmp_path / "lora", fake_model(tmp_path / "model")) / "adapter_model.safetensors"
    full = fake_model(tmp_path / "full") / "model.safetensors"
    for path in (lora, full):
        path.write_bytes((path.read_bytes().replace(b"[0, 0]", b"[0, 9]") + bytes(9))[:kept])
    with pytest.raises(ConfigError) as error:
        judge(tmp_path, pairs_file, checkpoints={"lora": str(lora.parent), "full": str(full.parent)})
    told = [line.partition(": cut short")[0] for line in str(error.value).splitlines()]
    assert told == [f"checkpoints: lora: {lora}", f"checkpoints: full: {full}"]
    assert rule_engine.opened == []


@pytest.mark.parametrize("path", ["gone/away", "nothing/checkpoint-*"])
def test_a_missing_folder_is_refused(
    rule_engine: type[RuleEngine], tmp_path: Path, pairs_file: Path, path: str
) -> None:
    with pytest.raises(ConfigError, match="no such file or folder"):
        judge(tmp_path, pairs_file, checkpoints={"a": str(tmp_path / path)})
    assert rule_engine.opened == []


def test_an_adapter_without_a_base_is_refused(rule_engine: type[RuleEngine], tmp_path: Path, pairs_file: Path) -> None:
    adapter = fake_adapter(tmp_path / "a", fake_model(tmp_path / "model"))
    with pytest.raises(ConfigError, match="set base"):
        judge(tmp_path, pairs_file, base=None, checkpoints={"a": str(adapter)})
    assert rule_engine.opened == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"engine": "vlm"}, "engine"),
        ({"prompt": "score100"}, "did you mean"),
        ({"seeds": [1, 1]}, "same seed twice"),
        ({"temperature": 0}, "one answer"),
        ({"max_length": 100}, "no room"),
    ],
)
def test_bad_settings_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        JudgeConfig.build(values)
