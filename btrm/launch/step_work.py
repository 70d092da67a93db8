"""What a job does to its step: all of it, one element's share, or the commit of what the elements did."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import replace
from pathlib import Path

from btrm.checkpoints import checkpoints, is_whole, step_of
from btrm.config import ConfigError
from btrm.launch.attempt import Running, consecutive
from btrm.launch.local import run_step
from btrm.launch.submission import PlannedStep, Submission
from btrm.publishing import win, write_json
from btrm.runs import REQUEST, RunPaths, StageConfig, StageRun, read_request
from btrm.stage_inputs import code_digests, references
from btrm.stage_table import Stage, get_stage
from btrm.stages import prepare
from btrm.staging import Staging, stage_in
from btrm.stopping import safe_point
from btrm.train.launch import dismiss
from btrm.train.rank import read_steps
from btrm.work import Pool, read_units, write_units

_LOG = logging.getLogger(__name__)
_POLL_S = 2.0


def whole(submission: Submission, step: PlannedStep, root: Path, running: Running) -> None:
    """Do a step that is one job, or commit one whose elements have done their shares."""
    _refuse_changed_code(step)
    stage, commit = get_stage(step.stage), running.step.endswith(".commit")
    if commit:
        _refuse_unfinished(stage, step, root)
    elif stage.shared:
        element_share(
            submission, step, root, running
        )  # as the one element of its array: with progress, and safe points
    halvings = consecutive(running.before, "cuda_out_of_memory")
    done = threading.Event()
    watch = threading.Thread(target=_watch_steps, args=(root / step.name, running, done), daemon=True)
    watch.start()
    try:
        run_step(_halved(step, halvings), root, None if commit else _stage_inputs(submission, step, root))
    finally:
        done.set()
        watch.join(_POLL_S)
        if step.resources.nodes > 1:
            dismiss(root / step.name)  # the other nodes wait for a word, also where there was nothing to train
    running.progress(steps_done(root / step.name) or running.now.done, running.now.total)


def _stage_inputs(submission: Submission, step: PlannedStep, root: Path) -> Staging | None:
    """Copy what a GPU stage reads to the node's own disk, where the site names one."""
    stage, scratch = get_stage(step.stage), submission.plan().site.get("scratch")
    # One node stages for itself alone, and all of a job read the same order; a commit reads no model.
    if not scratch or not stage.resources.gpus or step.resources.nodes > 1:
        return None
    found = [RunPaths(root).resolve(ref) for _, ref in references(stage.config.build(step.config))]
    staging = stage_in([path for path in found if path is not None and path.exists()], Path(str(scratch)))
    _LOG.info(
        "staged %.1f GB in %.1f s; ready copies saved %.1f s", staging.bytes / 1e9, staging.seconds, staging.saved_s
    )
    return staging


def _refuse_changed_code(step: PlannedStep) -> None:
    """Refuse to run a user's own file that is not what it was when the job was submitted; btrm's own code is a copy."""
    now = code_digests(get_stage(step.stage).config.build(step.config))
    changed = sorted(name for name, digest in step.code.items() if now.get(name) != digest)
    if changed:
        raise ConfigError(f"{step.name}: {', '.join(changed)}: changed since this was submitted; submit again")


def _refuse_unfinished(stage: Stage, step: PlannedStep, root: Path) -> None:
    config = stage.config.build(step.config)
    missing = sum(unit.rows for unit in stage.work(config, _stage_run(step, root)))
    if missing:
        raise RuntimeError(f"{step.name}: {missing} rows are still missing; its array must run again before a commit")


def element_share(submission: Submission, step: PlannedStep, root: Path, running: Running) -> None:
    """Do one element's share of a step's work, as it was cut when the array began."""
    _refuse_changed_code(step)
    stage = get_stage(step.stage)
    planned = _halved(step, consecutive(running.before, "cuda_out_of_memory"))
    config = stage.config.build(planned.config)
    prepared = prepare(step.name, config, step.resources, root, step.stage)
    if prepared.done:
        return
    if read_request(prepared.directory) != prepared.request:
        write_json(prepared.directory / REQUEST, prepared.request.model_dump(mode="json"))
    staging = _stage_inputs(submission, step, root)
    run = replace(_stage_run(step, root), staged=staging.local if staging else {})
    split = submission.split(step.name)
    if not split.exists():
        _pin(stage, config, run, split)
    pool = Pool(read_units(split), running.element, step.elements or 1)
    mine = pool.own()
    total = sum(unit.rows for unit in mine)
    _LOG.info("%d rows in %d units", total, len(mine))
    done = min(running.now.done, total)
    for rows in stage.share(config, run, pool):  # rows of other shares too, in the end: those are counted there
        done += rows
        running.progress(min(done, total), total)
        safe_point()
    running.progress(total, total)


def _pin(stage: Stage, config: StageConfig, run: StageRun, split: Path) -> None:
    """Write down what is missing now; of several elements that begin together, one wins and all read the same."""
    scratch = split.with_name(f".{split.name}.{os.uname().nodename}.{os.getpid()}")
    write_units(scratch, stage.work(config, run))
    win(scratch, split)
    scratch.unlink(missing_ok=True)


def _stage_run(step: PlannedStep, root: Path) -> StageRun:
    directory = root / step.name
    return StageRun(RunPaths(root), step.name, directory, step.resources, directory / REQUEST)


def _halved(step: PlannedStep, halvings: int) -> PlannedStep:
    """Return a step with its batch halved so many times, where its stage can do that without changing results."""
    stage = get_stage(step.stage)
    if not halvings or not stage.halve_name:
        return step
    _LOG.info("%s: batch halved %d times after CUDA ran out of memory", step.name, halvings)
    config = stage.halve(stage.config.build(step.config), halvings)
    return step.model_copy(update={"config": config.model_dump(mode="json")})


def steps_done(directory: Path) -> int:
    """Return the step of the last whole checkpoint: what a trainer would resume from."""
    whole = [step_of(path) for path in checkpoints(directory / "checkpoints") if is_whole(path)]
    return whole[-1] if whole else 0


def _watch_steps(directory: Path, running: Running, done: threading.Event) -> None:
    """Carry a trainer's live progress into the state."""
    while not done.wait(_POLL_S):
        if (steps := read_steps(directory)) is not None:
            running.progress(*steps)
