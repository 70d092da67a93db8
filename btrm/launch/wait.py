"""Waiting for a submission to end; what ends it is on disk."""

from __future__ import annotations

import time
from pathlib import Path

from btrm.launch.control import unfinished
from btrm.launch.queue import look
from btrm.launch.site import Site
from btrm.launch.submission import Submission
from btrm.report.closing import ending
from btrm.runs import StageError, read_manifest


def wait(submission: Submission, site: Site) -> int:
    """Return 0 when every step is complete; raise StageError where the submission goes no further before that."""
    plan = submission.plan()
    quiet = 0
    while not _manifests(submission) or unfinished(plan):
        if (stopped := submission.stopped()) is not None:
            raise StageError(f"{stopped['cause']}: {stopped['reason']}; {stopped['advice']}")
        # Twice without a job: between a controller's last look and its successor there may be none for a moment.
        view = look(site.queue_interval_s)
        quiet = 0 if not view.known or view.holds(f"btrm-{submission.name}-") else quiet + 1
        if quiet == 2 and unfinished(plan):
            raise StageError(f"no job is left and {plan.root} is not complete; see btrm status, then: btrm retry")
        time.sleep(site.queue_interval_s)
    print(ending(Path(plan.root), plan.steps[-1].stage, plan.steps[-1].name))
    return 0


def _manifests(submission: Submission) -> bool:
    """Say whether all steps have a manifest: the cheap question before the exact one."""
    plan = submission.plan()
    return all(read_manifest(Path(plan.root) / step.name) is not None for step in plan.steps)
