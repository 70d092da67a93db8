from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from btrm import submit
from btrm.config import ConfigError, flat_fields
from btrm.launch.api_steps import api_problems
from btrm.launch.plan import Experiment, Step
from btrm.launch.secrecy import refuse_keys
from btrm.launch.site import load_site
from btrm.stage_table import STAGES
from btrm.teacher.config import TeacherConfig

KEY = "sk-very-secret"


@pytest.mark.parametrize(
    "words",
    [
        ["--api_key", KEY],
        ["--api-key", KEY],
        [f"--api-key={KEY}"],
        [f"--apikey={KEY}"],
        ["--key", KEY],
        ["--api-key"],
        [f"--ANTHROPIC_API_KEY={KEY}"],
        ["--hub-token", KEY],
        ["--set", f"api_key={KEY}"],
        [f"--set=teacher.api_key={KEY}"],
        ["--swift", f"hub_token={KEY}"],
    ],
)
@pytest.mark.parametrize("stage", ["teacher", "pairs", "pipeline"])
def test_a_key_in_a_command_is_refused_and_not_repeated(
    stage: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit.main([stage, *words]) == 2
    said = "".join(capsys.readouterr())
    assert "shows in ps" in said and "--api-key-file" in said and KEY not in said


def test_no_flag_of_any_stage_is_taken_for_a_key() -> None:
    for stage in STAGES.values():
        refuse_keys([f"--{field.replace('_', '-')}=x" for field in flat_fields(stage.config)])
    refuse_keys(["--api-key-file", "f", "--api_key_file=f", "--set", "api_key_file=f", "--max-tokens", "5"])
    refuse_keys(["--base-url", "http://h:1/v1?key=a", "--slurm", "partition=monkey"])


def experiment(**fields: Any) -> Experiment:
    values = {"backend": "anthropic", "model": "claude-sonnet-4-20250514", **fields}
    return Experiment("one", "", (Step("teacher", TeacherConfig.build(values)),))


def problems(tmp_path: Path, *, offline: bool = False, **fields: Any) -> str:
    site = load_site("slurm").model_copy(update={"offline": offline})
    return "\n".join(api_problems(experiment(**fields), tmp_path, site, tmp_path / ".env"))


def test_a_key_that_jobs_will_not_have_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    said = problems(tmp_path)
    assert "ANTHROPIC_API_KEY=… into .env" in said and KEY not in said
    assert problems(tmp_path, api_key_file="k") == ""
    assert problems(tmp_path, backend="openai", base_url="http://10.0.0.1:8000/v1") == ""
    assert "OPENAI_API_KEY" in problems(tmp_path, backend="openai")
    assert problems(tmp_path, backend="rule_random") == problems(tmp_path, backend="vllm") == ""
    (tmp_path / ".env").write_text(f"ANTHROPIC_API_KEY={KEY}\n")
    assert problems(tmp_path) == "" and "GEMINI_API_KEY" in problems(tmp_path, backend="gemini")


def test_nodes_without_internet_ask_nobody_outside(tmp_path: Path) -> None:
    said = problems(tmp_path, offline=True, api_key_file="k")
    assert "no internet" in said and "--executor inline" in said and "--backend vllm" in said
    assert problems(tmp_path, offline=True, backend="openai", base_url="http://10.0.0.1:8000/v1") == ""


def test_estimates_are_refused_for_stages_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BTRM_SITE", "local")
    assert submit.main(["pairs", "--run", str(tmp_path / "r"), "--estimate"]) == 2
    assert "--estimate" in capsys.readouterr().err and not (tmp_path / "r").exists()


def test_refusal_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="--key"):
        refuse_keys(["--key=x"])
