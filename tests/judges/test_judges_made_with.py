"""What answers were made with is told: the template, its own system prompt, what a prompt begins with."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from conftest import CHAT, make_adapter, make_model, make_tokenizer
from judge_stage import RuleEngine, rows, run_stage, stage_run
from test_judges_grid import config, fake_adapter, fake_model

from btrm.config import ConfigError
from btrm.data.toy import toy_pairs
from btrm.judges.chat import Chat
from btrm.judges.grid import JudgeConfig
from btrm.judges.made_with import added_system, beginning, read_notes
from btrm.judges.outcomes import count_outcomes
from btrm.prompts import get_prompt
from btrm.records import write_pairs

OWN = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}" + CHAT
)
REFUSES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHAT


def chat(template: str) -> Chat:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    return Chat(tokenizer, frozenset(), frozenset(), 100)


@pytest.mark.parametrize(("template", "added"), [(CHAT, None), (OWN, "You are helpful."), (REFUSES, None)])
def test_a_system_prompt_of_the_templates_own_is_found(template: str, added: str | None) -> None:
    assert added_system(chat(template)) == added


def test_a_prompt_begins_with_all_that_stands_before_the_pair() -> None:
    judge = JudgeConfig(prompt="hh_score100_v1", system="Judge harshly.")
    spec = judge.asked_with(judge.prompt)
    begun = beginning(chat(OWN), spec)
    assert begun.startswith("<|im_start|>system\nJudge harshly.<|im_end|>\n<|im_start|>user\nYou are grading")
    assert begun.endswith("### Conversation\n")
    assert beginning(chat(OWN), get_prompt(judge.prompt)).startswith("<|im_start|>system\nYou are helpful.")
    empty = judge.model_copy(update={"system": ""}).asked_with(judge.prompt)
    assert beginning(chat(OWN), empty).startswith("<|im_start|>system\n<|im_end|>")


def test_a_template_that_takes_no_system_prompt_says_so() -> None:
    spec = JudgeConfig(system="x").asked_with("toy_score100")
    with pytest.raises(ConfigError, match="refuses messages of system, user: no system role"):
        beginning(chat(REFUSES), spec)


def test_the_system_prompt_came_later() -> None:
    assert "system" not in JudgeConfig().identity()
    assert JudgeConfig(system="").identity()["system"] == ""
    assert JudgeConfig().override(["system=none"]).system is None


def test_a_model_its_adapter_and_another_model_are_told_apart_by_their_files(
    rule_engine: type[RuleEngine], tmp_path: Path, pairs_file: Path
) -> None:
    base, other = fake_model(tmp_path / "model"), fake_model(tmp_path / "other", width=16)
    lora = fake_adapter(tmp_path / "lora", base)
    checkpoints = {"base": str(base), "full": str(other), "lora": str(lora)}
    values = config(tmp_path, pairs_file, checkpoints=checkpoints)
    done = run_stage("judge", JudgeConfig.build(values), tmp_path / "run")
    hashes = {label: {(r["model_hash"], r["adapter_hash"]) for r in rows(tmp_path / "run") if r["judge"] == label}
              for label in checkpoints}  # fmt: skip
    ((base_model, none),), ((full_model, no_adapter),), ((lora_base, adapter),) = hashes.values()
    assert base_model == lora_base != full_model and none is no_adapter is None and adapter
    assert rule_engine.opened == [str(base), str(other)]
    noted = done.results["made_with"]
    assert {n["model_hash"] for n in noted} == {base_model, full_model} and len(noted) == 2
    assert all(n["packages"]["torch"] for n in noted)


def test_answers_made_in_two_ways_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "made_with"
    folder.mkdir()
    for number, dtype in enumerate(["float16", "bfloat16", "bfloat16"]):
        noted = {"model_hash": "m" if number < 2 else "n", "prompt": "p", "dtype": dtype}
        (folder / f"{number}.json").write_text(json.dumps(noted))
    with caplog.at_level(logging.WARNING):
        assert len(read_notes(tmp_path, ["m", "n"])) == 3
    assert [record.getMessage() for record in caplog.records] == [
        'p: answers were made with several dtype: "bfloat16", "float16"'
    ]
    assert len(read_notes(tmp_path, ["n"])) == 1


@pytest.mark.slow
def test_real_models_mixed_in_one_grid_and_prompts_that_are_too_long(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_pairs(tmp_path / "test.parquet", toy_pairs("test", 3))
    other = make_model(tmp_path / "other", seed=9)
    lora = make_adapter(tiny_model, tmp_path / "lora", seed=3)
    values: dict[str, Any] = {
        "base": str(tiny_model),
        "checkpoints": {"base": str(tiny_model), "full": str(other), "lora": str(lora)},
        "pairs": str(tmp_path / "test.parquet"),
        "max_new_tokens": 6,
        "dtype": "float32",
    }
    with caplog.at_level(logging.WARNING):
        done = run_stage("judge", JudgeConfig.build(values), tmp_path / "run")
    assert not [record for record in caplog.records if "leave no room" in record.getMessage()]
    found = rows(tmp_path / "run")
    texts = {label: [r["completion"] for r in found if r["judge"] == label] for label in values["checkpoints"]}
    assert len({tuple(of) for of in texts.values()}) == 3
    notes = done.results["made_with"]
    assert len(notes) == 2 and {n["dtype"] for n in notes} == {"float32"}
    assert len({n["template_sha256"] for n in notes}) == 1
    assert {n["prompt_begins"] for n in notes} == {"<|im_start|>user\n"}
    assert sum(done.results["outcomes"].values()) == len(found) == 3 * 3 * 3 * 2 * 2
    longest = max(row["prompt_tokens"] for row in found)
    tight = JudgeConfig.build({**values, "max_length": longest + 5})  # one token less than the longest would need
    with caplog.at_level(logging.WARNING):
        cut = run_stage("judge", tight, tmp_path / "tight")
    counts = cut.results["outcomes"]
    assert 0 < counts["prompt_too_long"] < sum(counts.values())
    assert counts == count_outcomes(stage_run(tmp_path / "tight").dir / "judgements.parquet")
    assert any("leave no room" in record.getMessage() for record in caplog.records)


@pytest.mark.slow
def test_prompts_that_are_too_long_for_the_model_are_told_with_its_own_length(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_pairs(tmp_path / "test.parquet", toy_pairs("test", 2))
    own = json.loads((tiny_model / "config.json").read_text())["max_position_embeddings"]
    values = {
        "base": None,
        "checkpoints": {"base": str(tiny_model)},
        "pairs": str(tmp_path / "test.parquet"),
        "max_new_tokens": own,
        "max_length": own + 100,
    }
    done = run_stage("judge", JudgeConfig.build(values), tmp_path / "run")
    assert done.results["outcomes"] == {"prompt_too_long": 3 * 2 * 2 * 2}
    told = f"100.00 % of the prompts leave no room in max_length {own + 100}, of which a model takes {own}"
    assert told in [record.getMessage() for record in caplog.records]
