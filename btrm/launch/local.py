"""Running a plan on this machine: in the foreground, or in the background by submitit."""

from __future__ import annotations

import logging
import os
import shlex
import stat
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from btrm.config import ConfigError
from btrm.launch.submission import PlannedStep, Submission
from btrm.locks import exclusive
from btrm.publishing import write_json
from btrm.runs import REQUEST, RunManifest
from btrm.stage_table import get_stage
from btrm.stages import Prepared, execute, prepare
from btrm.staging import Staging
from btrm.stopping import safe_point

_LOG = logging.getLogger(__name__)
_SAID = {
    "new": "starts",
    "resume": "resumes",
    "extend": "is extended",
    "anew": "is made anew: the settings or btrm are others",
}


def run_step(step: PlannedStep, root: Path, staging: Staging | None = None) -> RunManifest | None:
    """Bring one step to completion; return its manifest, or None where it was complete already."""
    config = get_stage(step.stage).config.build(step.config)
    prepared = prepare(step.name, config, step.resources, root, step.stage)
    if prepared.done:
        _LOG.info("%-10s complete, skipped", step.name)
        return None
    _LOG.info("%-10s %s", step.name, _SAID[prepared.note])
    started = time.monotonic()
    manifest = execute(write_request(prepared), staging)
    _LOG.info("%-10s done in %.1f s", step.name, time.monotonic() - started)
    return manifest


def write_request(prepared: Prepared) -> Path:
    """Write what is asked of a stage; the job reads nothing else. Refused while another process works there."""
    path = prepared.directory / REQUEST
    with exclusive(prepared.directory):
        write_json(path, prepared.request.model_dump(mode="json"))
    return path


def run_plan(submission: Submission) -> None:
    """Run the steps of a plan in order; complete ones are skipped."""
    plan = submission.plan()
    with environment(plan.env):
        for step in plan.steps:
            run_step(step, Path(plan.root))
            safe_point()


def start_background(submission: Submission, time_min: int) -> str:
    """Start a plan as a local submitit job and return the path of its log.

    Raises ConfigError where others may write to the run: the child loads a pickle from there, which can run any code.
    """
    import submitit

    submission.logs.mkdir(exist_ok=True)
    _refuse_shared(submission.logs, Path(submission.plan().root))
    executor = submitit.LocalExecutor(folder=submission.logs)
    executor.update_parameters(timeout_min=time_min, name="btrm")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    job = executor.submit(run_background, str(submission.directory), visible)
    return str(job.paths.stdout)


def _refuse_shared(folder: Path, root: Path) -> None:
    """Raise ConfigError where a folder, or one above it up to the run's root, is writable by group or others."""
    inside = [path for path in (folder, *folder.parents) if path == root or root in path.parents]
    if shared := [str(path) for path in inside if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)]:
        raise ConfigError(
            f"{', '.join(shared)}: writable by group or others, who could put their code into a background run; "
            f"chmod go-w {shlex.join(shared)} (and umask 022), or --executor inline"
        )


def run_background(directory: str, visible_gpus: str | None) -> None:
    """Run a plan in submitit's child, which has hidden the GPUs: give back those that the launcher saw."""
    if visible_gpus is None:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible_gpus
    run_plan(Submission(Path(directory)))


@contextmanager
def environment(values: dict[str, str]) -> Generator[None]:
    """Set a site's environment for the time of a run, then put back what was there."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
