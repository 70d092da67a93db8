"""The command that goes on with a stage where it stands."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from btrm.config import ConfigError, flat_fields
from btrm.launch.plan import get_experiment
from btrm.launch.submission import submissions
from btrm.runs import StageConfig, StageRequest, read_request
from btrm.stage_table import get_stage

_ORIGIN = "experiment.json"


def go_on(directory: Path) -> str:
    """Return the command that does what a stage lacks: a retry of its jobs, or the same submission once more.

    Raises ConfigError where nothing was ever asked for.
    """
    request = read_request(directory)
    if request is None:
        raise ConfigError(f"{directory}: no stage.json: no stage's directory")
    root = Path(request.root)
    if any(submission.sent() for submission in submissions(root)):
        return shlex.join(["btrm", "retry", str(root)])
    name = [] if request.name == request.stage else [f"--name={request.name}"]
    return shlex.join(["python", "-m", "btrm.submit", request.stage, f"--run={root}", *name, *_flags(request, root)])


def _flags(request: StageRequest, root: Path) -> Iterator[str]:
    """Yield the flags of what differs from the experiment that the run was made by."""
    config = get_stage(request.stage).config.build(request.config, request.name)
    mine, usual = config.by_role(*_ROLES), _usual(request, root).by_role(*_ROLES)
    for field in flat_fields(type(config)):
        if field in mine and mine[field] != usual.get(field):
            yield f"--{field.replace('_', '-')}={_text(mine[field])}"


_ROLES = ("setting", "source", "extent", "members", "runtime")


def _usual(request: StageRequest, root: Path) -> StageConfig:
    """Return the config that submit starts from: the experiment's own, else the stage's defaults."""
    origin = root / _ORIGIN
    if origin.is_file():
        steps = get_experiment(json.loads(origin.read_text(encoding="utf-8"))["experiment"]).steps
        found = [step for step in steps if step.stage == request.stage]
        named = [step for step in found if step.key == request.name]
        if found:
            return (named or found)[0].config
    return get_stage(request.stage).config.build({}, request.stage)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "none" if value is None else json.dumps(value)
