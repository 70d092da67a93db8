"""What a job runs on each of its nodes: `python -m btrm.launch.job SUBMISSION STEP KIND FIRST`.

It reads the plan by path, does its part, and leaves the truth on disk: a state, a log, and the stage's own outputs.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from btrm.checkpoints import checkpoints, is_whole, step_of
from btrm.config import ConfigError
from btrm.environment import load_environment
from btrm.launch.attempt import MAX_HALVINGS, TERMINATED, TIME_LIMIT, NoProgressError, Running, attempt, consecutive
from btrm.launch.failures import classify
from btrm.launch.local import run_step
from btrm.launch.submission import PATROL, PlannedStep, Submission
from btrm.leases import Fenced
from btrm.runs import (
    JOB_IDS,
    OWNER,
    REQUEST,
    RunPaths,
    StageConfig,
    StageError,
    StageRun,
    read_request,
    win,
    write_json,
)
from btrm.stages import Stage, get_stage, prepare, references
from btrm.staging import Staging, stage_in
from btrm.stopping import Stopped, listen, safe_point
from btrm.train.launch import dismiss, follow
from btrm.train.rank import read_steps
from btrm.work import read_units, share, write_units

_LOG = logging.getLogger(__name__)
_POLL_S = 2.0
_FULL_S = 300.0  # until a controller looks again whether the queue has room
STOPPED_CODE = 75  # EX_TEMPFAIL: try again


def main(argv: Sequence[str]) -> int:
    """Do a job's part; return its exit code: 0 done, 75 stopped on request with all work on disk, 1 failed."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    submission, name, kind, first = Submission(Path(argv[0])), argv[1], argv[2], int(argv[3])
    load_environment(os.environ, Path(".env"))
    os.environ[OWNER] = f"job {os.environ.get('SLURM_JOB_ID', os.getpid())}"
    if kind == "control":
        return _patrol(submission) if name == PATROL else _control(submission)
    plan = submission.plan()
    step = plan.step(name)
    if rank := int(os.environ.get("SLURM_PROCID", "0")):
        return _follower(Path(plan.root) / name, rank)
    os.environ[JOB_IDS] = " ".join(dict.fromkeys(job.job_id for job in submission.sent() if job.step == name))
    element = first + int(os.environ.get("SLURM_ARRAY_TASK_ID", "0")) if kind == "array" else 0
    os.environ["NODE_RANK"] = "0"
    _LOG.info("%s.%d on %s", name, element, os.uname().nodename)
    stage, last = get_stage(step.stage), submission.read_state(name, element).last
    counted = stage.shared and kind != "commit"  # rows, in the state; a trainer's steps are those of its checkpoints
    at_start = (last.done if last else 0) if counted else _steps_done(Path(plan.root) / name)
    work = _array if kind == "array" else _whole
    halvings = MAX_HALVINGS if stage.halve_name else 0
    gpus = step.resources.nodes * step.resources.gpus if kind != "commit" else 0
    try:
        named = name if kind != "commit" else f"{name}.commit"
        with attempt(submission, named, element, gpus, at_start, halvings) as running:
            return _guarded(lambda: work(submission, step, Path(plan.root), running), running)
    except NoProgressError as error:
        _LOG.error("no further attempt: %s", error)
        return 1
    finally:
        if kind != "array":
            _ensure_controller(submission)


def _ensure_controller(submission: Submission) -> None:
    """See to it that a controller will look after this job; from inside an image the cluster cannot be asked."""
    from btrm.launch.control import ensure

    if shutil.which("squeue") is None:
        return
    try:
        ensure(submission)
    except (OSError, StageError, ConfigError) as error:
        _LOG.warning("no controller could be sent: %s", error)


def _patrol(submission: Submission) -> int:
    from btrm.launch.patrol import patrol

    patrol(submission)
    return 0


def _control(submission: Submission) -> int:
    """Look what is left to do. Where that cannot be done now, the batch script puts this job back into the queue."""
    from btrm.launch.control import advance, give_up  # asks the cluster, which no other job does before it has worked
    from btrm.launch.patrol import dismiss_patrol
    from btrm.launch.slurm import NoRoomError

    try:
        advance(submission)
        dismiss_patrol(submission)
    except (StageError, NoRoomError, OSError) as error:
        _LOG.error("%s; trying again", error)
        time.sleep(_FULL_S if isinstance(error, NoRoomError) else 0)
        return STOPPED_CODE
    except Exception as error:
        _LOG.exception("the controller failed")
        give_up(submission, error)
    return 0


def _guarded(work: Callable[[], None], running: Running) -> int:
    """Do the work and write down how it ended, whichever way."""
    try:
        return _ended(work, running)
    except Fenced as error:
        running.fenced(error)
        _LOG.error("%s", error)
        return 1


def _ended(work: Callable[[], None], running: Running) -> int:
    try:
        work()
    except Fenced:
        raise
    except Stopped as stopped:
        _LOG.info("stopped (%s); everything done is on disk", stopped)
        running.end("stopped", str(stopped), "asked to stop at a safe point")
        return STOPPED_CODE
    except BaseException as error:
        return _failed(error, running)
    running.no_requeue()
    running.end("done")
    return 0


def _failed(error: BaseException, running: Running) -> int:
    """Classify a failure; only what is to run again at once, on this very job, keeps its mark."""
    text = "".join(traceback.format_exception(error)) if not isinstance(error, ConfigError) else str(error)
    failure = classify(text, getattr(error, "code", None), None, error)
    if failure.action not in {"requeue", "halve"}:
        running.no_requeue()
    reason = str(error).strip().splitlines()
    running.end("failed", failure.name, reason[-1] if reason else type(error).__name__)
    _LOG.error("%s\nbtrm: %s: %s", text, failure.name, failure.advice)
    return 1


def _whole(submission: Submission, step: PlannedStep, root: Path, running: Running) -> None:
    """Do a step that is one job, or commit one whose elements have done their shares."""
    stage = get_stage(step.stage)
    if stage.shared and running.step.endswith(".commit"):
        _refuse_unfinished(stage, step, root)
    elif stage.shared:
        _array(submission, step, root, running)  # as the one element of its array: with progress, and safe points
    halvings = consecutive(running.before, "cuda_out_of_memory")
    done = threading.Event()
    watch = threading.Thread(target=_watch_steps, args=(root / step.name, running, done), daemon=True)
    watch.start()
    try:
        run_step(_halved(step, halvings), root, _stage_inputs(submission, step, root))
    finally:
        done.set()
        watch.join(_POLL_S)
        if step.resources.nodes > 1:
            dismiss(root / step.name)  # the other nodes wait for a word, also where there was nothing to train
    running.progress(_steps_done(root / step.name) or running.now.done, running.now.total)


def _stage_inputs(submission: Submission, step: PlannedStep, root: Path) -> Staging | None:
    """Copy what a GPU stage reads to the node's own disk, where the site names one."""
    stage, scratch = get_stage(step.stage), submission.plan().site.get("scratch")
    if not scratch or not stage.resources.gpus:
        return None
    found = [RunPaths(root).resolve(ref) for _, ref in references(stage.config.build(step.config))]
    staging = stage_in([path for path in found if path is not None and path.exists()], Path(str(scratch)))
    _LOG.info(
        "staged %.1f GB in %.1f s; ready copies saved %.1f s", staging.bytes / 1e9, staging.seconds, staging.saved_s
    )
    return staging


def _refuse_unfinished(stage: Stage, step: PlannedStep, root: Path) -> None:
    config = stage.config.build(step.config)
    missing = sum(unit.rows for unit in stage.work(config, _stage_run(step, root)))
    if missing:
        raise RuntimeError(f"{step.name}: {missing} rows are still missing; its array must run again before a commit")


def _array(submission: Submission, step: PlannedStep, root: Path, running: Running) -> None:
    """Do one element's share of a step's work, as it was cut when the array began."""
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
    mine = share(read_units(split), running.element, step.elements or 1)
    total = sum(unit.rows for unit in mine)
    _LOG.info("%d rows in %d units", total, len(mine))
    done = min(running.now.done, total)
    for rows in stage.share(config, run, mine):
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


def _follower(directory: Path, rank: int) -> int:
    """Be node `rank` of a trainer; the first node says what to do and keeps the state."""
    os.environ["NODE_RANK"] = str(rank)
    listen({signal.SIGURG: TIME_LIMIT, signal.SIGTERM: TERMINATED})
    return follow(directory)


def _steps_done(directory: Path) -> int:
    """Return the step of the last whole checkpoint: what a trainer would resume from."""
    whole = [step_of(path) for path in checkpoints(directory / "checkpoints") if is_whole(path)]
    return whole[-1] if whole else 0


def _watch_steps(directory: Path, running: Running, done: threading.Event) -> None:
    """Carry a trainer's live progress into the state."""
    while not done.wait(_POLL_S):
        if (steps := read_steps(directory)) is not None:
            running.progress(*steps)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
