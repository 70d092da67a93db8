"""What is refused before anybody is asked, or any GPU asked for."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

from btrm.config import ConfigError
from btrm.judges.checkpoints import find_model
from btrm.locks import OWNER
from btrm.runs import StageRun, read_manifest
from btrm.teacher.config import TeacherConfig
from btrm.teacher.keys import key_problem
from btrm.teacher.prices import check_price


def check_settings(config: TeacherConfig, run: StageRun) -> None:
    """Raise ConfigError for what the settings alone tell: no key, no price, no room for an answer.

    A teacher that has answered is not held to it: its key may be gone.
    """
    if read_manifest(run.dir) is None:
        _refuse(_settings_problems(config))


def check_start(config: TeacherConfig, run: StageRun, answers: Path) -> None:
    """Raise ConfigError for what a submission would fail with; jobs find out by themselves, some owe nothing more."""
    if OWNER in os.environ:
        return
    problems = _settings_problems(config)
    if not config.resume and any(answers.glob("*")):
        problems.append(f"resume is false, and {answers} holds answers; take another --run or --name, or remove them")
    if config.weights is not None:
        problems += _weights_problems(config, run)
    _refuse(problems)


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ConfigError("\n".join(problems))


def _settings_problems(config: TeacherConfig) -> list[str]:
    problems = [problem] if (problem := key_problem(config)) else []
    try:
        check_price(config)
    except ConfigError as error:
        problems.append(str(error))
    if config.backend == "vllm" and _answer_tokens(config) >= config.max_length:
        problems.append(_no_room(config, "max_length", config.max_length))
    return problems


def _weights_problems(config: TeacherConfig, run: StageRun) -> list[str]:
    """Return what is wrong with the model behind --model, as far as its files tell."""
    assert config.weights is not None
    try:
        model = Path(find_model(run, config.judge, config.weights).model)
    except ConfigError as error:
        return [f"model: {error}"]
    longest = _positions(model / "config.json")
    if longest is not None and _answer_tokens(config) >= longest:
        return [_no_room(config, f"{model}, which takes", longest)]
    return []


def _positions(path: Path) -> int | None:
    """Return the longest sequence that a model's config.json names; None where it names none, or is not here."""
    if not path.is_file():
        return None
    values = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))
    found = values.get("max_position_embeddings") or values.get("text_config", {}).get("max_position_embeddings")
    return found if isinstance(found, int) else None


def _answer_tokens(config: TeacherConfig) -> int:
    responses = 2 if config.layout == "pairwise" else config.batch_size
    return config.max_tokens * responses + config.thinking_room


def _no_room(config: TeacherConfig, what: str, longest: int) -> str:
    return (
        f"max_tokens {config.max_tokens} a response makes answers of {_answer_tokens(config)} tokens, "
        f"which leave no room for a prompt in {what} {longest}"
    )
