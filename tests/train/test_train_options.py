"""What passes through to ms-swift and what is refused, before any process starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from trainer_support import TINY, request_of, stage_run, write_rows

from btrm.config import ConfigError, flat_fields
from btrm.runs import RunManifest
from btrm.train.grpo import GrpoConfig, batch_plan, grpo_options
from btrm.train.nodes import place
from btrm.train.options import TrainerConfig, check_devices, make_order, world_size
from btrm.train.sft import SftConfig, sft_options
from btrm.train.swift_options import GRPO_OWNED, SFT_OWNED, check_passthrough, to_argv

SMALL = {**TINY, "num_generations": 2, "generation_batch_size": 8, "per_device_batch_size": 4, "max_steps": 1}


def test_other_options_pass_through_and_are_part_of_the_run(tmp_path: Path, tiny_model: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 4)
    base = GrpoConfig.build({**SMALL, "model": str(tiny_model), "rows": str(rows)})
    config = base.override(["swift.lr_scheduler_kwargs={}", "swift.weight_decay=0.1"])
    run = stage_run(tmp_path, "grpo")
    order = make_order(config, run, grpo_options(config, run, rows, batch_plan(config, 1)))
    assert order.argv[order.argv.index("--weight_decay") + 1] == "0.1"
    assert config.by_role("setting")["swift"] == {"lr_scheduler_kwargs": "{}", "weight_decay": "0.1"}


@pytest.mark.parametrize(("config", "owned"), [(SftConfig, SFT_OWNED), (GrpoConfig, GRPO_OWNED)])
def test_an_option_that_btrm_sets_is_refused_by_name_and_by_its_field(
    config: type[TrainerConfig], owned: dict[str, str]
) -> None:
    for key, what in owned.items():
        with pytest.raises(ConfigError, match=rf"swift\.{key}.*: btrm sets this itself") as error:
            check_passthrough({key: "1"}, owned)
        if not what.startswith("fixed: "):
            assert what in flat_fields(config) and str(error.value).endswith(f"set the field {what}")


@pytest.mark.parametrize("key", ["hub_token", "push_to_hub", "push_to_hub_token"])
def test_no_token_is_shown_again(key: str) -> None:
    with pytest.raises(ConfigError, match=r"set HF_TOKEN in \.env, never on a command line") as error:
        check_passthrough({key: "hf_secret"}, SFT_OWNED)
    assert "hf_secret" not in str(error.value)


def test_the_beginning_of_an_option_is_that_option() -> None:
    with pytest.raises(ConfigError, match=r"swift\.num_gen=3: .*num_generations"):
        check_passthrough({"num_gen": "3"}, GRPO_OWNED)


def test_all_refused_options_stand_in_one_message() -> None:
    with pytest.raises(ConfigError) as error:
        check_passthrough({"seed": "1", "output-dir": "x", "weight_decay": "0"}, SFT_OWNED)
    assert "swift.seed=1" in str(error.value)
    assert "swift.output_dir=x" in str(error.value)
    assert "weight_decay" not in str(error.value)


@pytest.mark.parametrize("gpus", [0, 1])
def test_every_option_that_btrm_gives_is_owned(gpus: int, tmp_path: Path) -> None:
    """So nobody can pass it twice, with two values."""
    both = {"model": "some/model", "model_type": "qwen2", "template": "chatml", "max_steps": 4}
    grpo = GrpoConfig.build({**SMALL, **both, "use_vllm": True})
    run, rows = stage_run(tmp_path, "grpo", gpus), tmp_path / "rows.jsonl"
    assert set(grpo_options(grpo, run, rows, batch_plan(grpo, 1))) <= set(GRPO_OWNED)
    assert set(sft_options(SftConfig.build(both), run, rows)) <= set(SFT_OWNED)


def test_truncation_by_deletion_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match="breaks pairs"):
        check_passthrough({"truncation_strategy": "delete"}, GRPO_OWNED)


@pytest.mark.parametrize(("top_k", "vllm", "given"), [(50, False, 50), (-1, False, 1_000_000), (-1, True, -1)])
def test_no_top_k_means_all_tokens_in_every_sampler(
    top_k: int, vllm: bool, given: int, tmp_path: Path, tiny_model: Path
) -> None:
    config = GrpoConfig.build({**SMALL, "model": str(tiny_model), "top_k": top_k, "use_vllm": vllm})
    options = grpo_options(config, stage_run(tmp_path, "grpo"), tmp_path / "rows.jsonl", batch_plan(config, 1))
    assert options["top_k"] == given


def test_argv_is_ms_swifts() -> None:
    argv = to_argv({"use_cpu": True, "reward_weights": ["1", "0"], "seed": 3}, {"x": "y"})
    assert argv == ["--use_cpu", "true", "--reward_weights", "1", "0", "--seed", "3", "--x", "y"]


def test_a_floor_needs_a_std_to_scale_by() -> None:
    with pytest.raises(ConfigError, match=r"reward_std_floor=0\.1 needs scale_rewards=group"):
        GrpoConfig.build({"reward_std_floor": 0.1, "scale_rewards": "none"})


def test_published_names_set_the_fields() -> None:
    config = GrpoConfig().override(["MAX_STEPS=10", "NUM_GENERATIONS=4", "BT_DELTA_TEMP=50", "min_reward_std=0.05"])
    assert (config.max_steps, config.num_generations) == (10, 4)
    assert (config.reward.delta_temp, config.reward_std_floor) == (50, 0.05)


def test_published_defaults() -> None:
    config = GrpoConfig()
    assert (config.num_generations, config.generation_batch_size, config.per_device_batch_size) == (8, 128, 2)
    assert (config.learning_rate, config.max_steps, config.save_steps) == (5e-6, 8000, 200)
    assert (config.temperature, config.top_p, config.top_k, config.max_completion_length) == (0.7, 0.9, 50, 128)
    assert (config.dynamic_sample, config.max_resample) == (True, 3)


def test_one_process_a_gpu_or_as_many_as_asked_for(tmp_path: Path) -> None:
    config = GrpoConfig.build({"cpu_processes": 2})
    assert world_size(config, stage_run(tmp_path, "a")) == 2
    assert world_size(config, stage_run(tmp_path, "b", gpus=8)) == 8


def test_several_nodes_need_the_launchers_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="MASTER_ADDR, MASTER_PORT, NODE_RANK"):
        place(2)
    for name, value in (("MASTER_ADDR", "n1"), ("MASTER_PORT", "2000"), ("NODE_RANK", "1")):
        monkeypatch.setenv(name, value)
    told = [place(2).variables(local, 4) for local in range(4)]
    assert [each["RANK"] for each in told] == ["4", "5", "6", "7"]
    assert [each["LOCAL_RANK"] for each in told] == ["0", "1", "2", "3"]
    assert {(each["WORLD_SIZE"], each["LOCAL_WORLD_SIZE"], each["NODE_RANK"], each["NNODES"]) for each in told} == {
        ("8", "4", "1", "2")
    }
    assert {(each["MASTER_ADDR"], each["MASTER_PORT"]) for each in told} == {("n1", "2000")}


@pytest.mark.parametrize(("name", "zero"), [("zero2", 2), ("zero3", 3)])
def test_deepspeed_is_given_as_a_file_that_we_ship(name: str, zero: int, tmp_path: Path) -> None:
    config = SftConfig.build({"model": "some/model", "deepspeed": name})
    options = sft_options(config, stage_run(tmp_path, "sft", gpus=8), tmp_path / "rows.jsonl")
    file = Path(str(options["deepspeed"]))
    assert json.loads(file.read_text())["zero_optimization"]["stage"] == zero
    check_devices(config, stage_run(tmp_path, "sft", gpus=8))


@pytest.mark.parametrize("gpus", [0, 1])
def test_deepspeed_needs_gpus_to_split_among(gpus: int, tmp_path: Path) -> None:
    config = GrpoConfig.build({"deepspeed": "zero3"})
    with pytest.raises(ConfigError, match=rf"deepspeed=zero3: splits among GPUs, and {gpus} train here"):
        check_devices(config, stage_run(tmp_path, "grpo", gpus))


RunStage = Callable[..., RunManifest]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"generation_batch_size": 6}, "Nearest valid: 4 or 8"),
        ({"generation_batch_size": 32}, "there are 5; at most 20 would do"),
        ({"swift": {"num_generations": "3"}}, "swift.num_generations=3: btrm sets this itself"),
        ({"max_length": 16}, "no row of 10 fits max_length=16"),
    ],
)
def test_grpo_refuses_before_a_process_starts(
    values: dict[str, object], message: str, tmp_path: Path, tiny_model: Path, run_stage: RunStage
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 5)
    with pytest.raises(ConfigError, match=message):
        run_stage("grpo", model=str(tiny_model), rows=str(rows), **{**SMALL, **values})
    assert not (tmp_path / "run" / "grpo" / "logs").exists()


def broken(rows: list[dict[str, object]], how: str) -> list[dict[str, object]]:
    if how == "lone side":
        return rows[:3]
    if how == "again":
        return [*rows[:2], *rows[:2]]
    return [rows[0], {**rows[1], "preferred_side": 1 - int(str(rows[1]["preferred_side"]))}]


@pytest.mark.parametrize(
    ("how", "message"),
    [("lone side", r":3: lone side"), ("again", r":3: row key .* again"), ("disagree", r":2: .* preferred_side")],
)
def test_grpo_refuses_rows_that_are_no_pairs(
    how: str, message: str, tmp_path: Path, tiny_model: Path, run_stage: RunStage
) -> None:
    path = write_rows(tmp_path / "rows.jsonl", 3)
    rows = broken([json.loads(line) for line in path.read_text().splitlines()], how)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ConfigError, match=message):
        run_stage("grpo", model=str(tiny_model), rows=str(path), **SMALL)


def test_rows_that_are_too_long_go_in_pairs_and_are_counted(tmp_path: Path, tiny_model: Path) -> None:
    from btrm.train.row_lengths import fitting_rows

    path = write_rows(tmp_path / "rows.jsonl", 3)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[3]["messages"][0]["content"] += " clear" * 100  # side 1 of the second pair
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = stage_run(tmp_path, "grpo")
    kept, report = fitting_rows(run, str(path), str(tiny_model), 64, group=2)
    assert report == {"rows": 4, "too_long": 2}
    assert [json.loads(line) for line in kept.read_text().splitlines()] == [*rows[:2], *rows[4:]]
    assert fitting_rows(run, str(path), str(tiny_model), 64, group=2) == (kept, report), "a resumed run finds them"
    write_rows(path, 4)
    assert fitting_rows(run, str(path), str(tiny_model), 64, group=2) == (path, {"rows": 8, "too_long": 0})
    assert not kept.exists(), "rows of what the input was before"


def test_an_adapter_is_no_model_to_start_from(tmp_path: Path, run_stage: RunStage) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"x")
    rows = write_rows(tmp_path / "rows.jsonl", 4)
    with pytest.raises(ConfigError, match="is an adapter; merge it"):
        run_stage("grpo", model=str(folder), rows=str(rows), **SMALL)
    with pytest.raises(ConfigError, match="is an adapter; merge it"):
        request_of("merge", tmp_path / "run", model=str(folder), adapter=str(folder), dtype="float32")
