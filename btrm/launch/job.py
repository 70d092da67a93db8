"""What a job runs on each of its nodes: `python -m btrm.launch.job SUBMISSION STEP KIND FIRST`.

It reads the plan by path, does its part, and leaves the truth on disk: a state, a log, and the stage's own outputs.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from btrm.config import ConfigError
from btrm.environment import load_environment
from btrm.launch.attempt import MAX_HALVINGS, TERMINATED, TIME_LIMIT, NoProgressError, Running, attempt
from btrm.launch.failures import classify
from btrm.launch.snapshot import check_code
from btrm.launch.step_work import element_share, steps_done, whole
from btrm.launch.submission import PATROL, Plan, Submission
from btrm.leases import Fenced
from btrm.locks import OWNER
from btrm.runs import JOB_IDS, StageError
from btrm.stage_table import get_stage
from btrm.stopping import Stopped, listen
from btrm.train.follow import follow, refuse

_LOG = logging.getLogger(__name__)
_FULL_S = 300.0  # until a controller looks again whether the queue has room
STOPPED_CODE = 75  # EX_TEMPFAIL: try again


def main(argv: Sequence[str]) -> int:
    """Do a job's part; return its exit code: 0 done, 75 stopped on request with all work on disk, 1 failed."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    submission, name, kind, first = Submission(Path(argv[0])), argv[1], argv[2], int(argv[3])
    os.environ[OWNER] = f"job {os.environ.get('SLURM_JOB_ID', os.getpid())}"
    if kind == "control":
        return _patrol(submission) if name == PATROL else _control(submission)
    load_environment(os.environ, Path(".env"))
    plan = submission.plan()
    step = plan.step(name)
    if rank := int(os.environ.get("SLURM_PROCID", "0")):
        return _follower(submission, plan, name, rank)
    os.environ[JOB_IDS] = " ".join(dict.fromkeys(job.job_id for job in submission.sent() if job.step == name))
    element = first + int(os.environ.get("SLURM_ARRAY_TASK_ID", "0")) if kind == "array" else 0
    os.environ["NODE_RANK"] = "0"
    _LOG.info("%s.%d on %s", name, element, os.uname().nodename)
    stage, last = get_stage(step.stage), submission.read_state(name, element).last
    counted = stage.shared and kind != "commit"  # rows, in the state; a trainer's steps are those of its checkpoints
    at_start = (last.done if last else 0) if counted else steps_done(Path(plan.root) / name)
    work = element_share if kind == "array" else whole
    halvings = MAX_HALVINGS if stage.halve_name else 0
    gpus = step.resources.nodes * step.resources.gpus if kind != "commit" else 0
    try:
        named = name if kind != "commit" else f"{name}.commit"
        with attempt(submission, named, element, gpus, at_start, halvings) as running:
            return _guarded(lambda: _checked(plan, lambda: work(submission, step, Path(plan.root), running)), running)
    except NoProgressError as error:
        _LOG.error("no further attempt: %s", error)
        return 1
    finally:
        if kind != "array" or element == first:
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

    try:
        patrol(submission)
    except (StageError, OSError) as error:
        _LOG.error("%s", error)
    return 0


def _control(submission: Submission) -> int:
    """Look what is left to do. Where that cannot be done now, the batch script puts this job back into the queue."""
    from btrm.launch.control import advance, give_up  # asks the cluster, which no other job does before it has worked
    from btrm.launch.patrol import dismiss_patrol
    from btrm.launch.sbatch import CONTROL_RESTARTS
    from btrm.launch.slurm import NoRoomError, RefusedError

    try:
        advance(submission)
        dismiss_patrol(submission)
    except RefusedError as error:
        give_up(submission, error)
    except (StageError, NoRoomError, OSError) as error:
        if int(os.environ.get("SLURM_RESTART_COUNT", "0")) >= CONTROL_RESTARTS - 1:
            give_up(submission, error)
            return 0
        _LOG.error("%s; trying again", error)
        time.sleep(_FULL_S if isinstance(error, NoRoomError) else 0)
        return STOPPED_CODE
    except Exception as error:
        _LOG.exception("the controller failed")
        give_up(submission, error)
    return 0


def _checked(plan: Plan, work: Callable[[], None]) -> None:
    check_code(plan.code_digest, plan.code)
    work()


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


def _follower(submission: Submission, plan: Plan, name: str, rank: int) -> int:
    """Be node `rank` of a trainer; the first node says what to do and keeps the state.

    Code that is not the submission's is said into this node's log, which the first node gives as the cause.
    """
    os.environ["NODE_RANK"] = str(rank)
    listen({signal.SIGURG: TIME_LIMIT, signal.SIGTERM: TERMINATED})
    directory = Path(plan.root) / name
    try:
        check_code(plan.code_digest, plan.code)
    except ConfigError as error:
        print(f"btrm: image_unfit: {error}", file=sys.stderr, flush=True)
        return refuse(directory, submission.logs / f"{os.environ['SLURM_JOB_ID']}_{rank}_log.out")
    return follow(directory)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
