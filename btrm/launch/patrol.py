"""A small job at intervals, for what no dependency tells: jobs that slurmctld held or forgot when it crashed.

A job whose start slurmctld had not saved comes back held ("launch failed requeued held") and would wait for a person; a
controller that was submitted in its last seconds is gone without a trace. Neither ends, so nothing runs after it.
"""

from __future__ import annotations

import logging
import os

from btrm.config import ConfigError
from btrm.launch.control import ensure, site_of, unfinished
from btrm.launch.jobs import controller
from btrm.launch.sbatch import Request
from btrm.launch.slurm import ask, send_one
from btrm.launch.submission import PATROL, Submission
from btrm.runs import StageError

_LOG = logging.getLogger(__name__)
_HELD = "launch_failed_requeued_held"


def patrol(submission: Submission) -> None:
    """Release what is held for no fault of its own, see to a controller, and come back while there is work left."""
    if submission.stopped() is not None or not unfinished(submission.plan()):
        return
    for job in held(submission):
        _LOG.info("releasing %s, which slurmctld held after a launch that failed", job)
        ask(["scontrol", "release", job])
    ensure(submission)
    send_patrol(submission)


def held(submission: Submission) -> list[str]:
    """Return the jobs and elements of a submission that slurmctld holds after a failed launch."""
    said = ask(["squeue", "--me", "--noheader", "--array", "--states=pending", "--format=%i|%j|%r"])
    rows = [line.split("|", 2) for line in said.stdout.splitlines()]
    mine = f"btrm-{submission.name}-"
    return [job for job, name, why in rows if name.startswith(mine) and why.replace(" ", "_") == _HELD]


def send_patrol(submission: Submission) -> None:
    """Send the next patrol where the site wants any; a queue without room for it is no harm."""
    plan = submission.plan()
    site = site_of(plan)
    if not site.patrol_s or not site.submit_from_nodes:
        return
    try:
        send_one(controller(plan.steps, PATROL), Request(submission, plan, site, begin_s=site.patrol_s))
    except (StageError, ConfigError) as error:
        _LOG.info("no patrol: %s", error)


def dismiss_patrol(submission: Submission) -> None:
    """Cancel the patrol where nothing is left that it could look after."""
    own = os.environ.get("SLURM_JOB_ID")
    sent = [job.job_id for job in submission.sent() if job.key == PATROL and job.job_id != own]
    if sent and (submission.stopped() is not None or not unfinished(submission.plan())):
        ask(["scancel", sent[-1]])
