"""Going on with a run that has stopped: by hand, what its controller does by itself."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from btrm.config import ConfigError
from btrm.launch.control import resend
from btrm.launch.patrol import send_patrol
from btrm.launch.submission import SentJob, Submission, submissions
from btrm.locks import exclusive


def retry(root: Path) -> list[SentJob]:
    """Send what is neither complete nor under way, and forget past failures; return the jobs."""
    return _resend(newest(root), None)


def retry_failed(root: Path) -> list[SentJob]:
    """Send the steps whose elements failed, and nothing else; their successors follow when they are done."""
    submission = newest(root)
    failed = {
        state.step.removesuffix(".commit")
        for state in submission.states()
        if state.last is not None and state.last.outcome in {"failed", "lost"}
    }
    return _resend(submission, failed) if failed else []


def _resend(submission: Submission, only: Collection[str] | None) -> list[SentJob]:
    """Send while no controller does, and have the jobs looked after."""
    with exclusive(submission.directory / "control"):
        sent = resend(submission, reset=True, only=only)
    if sent:
        send_patrol(submission)
    return sent


def newest(root: Path) -> Submission:
    """Return a run's newest submission that sent jobs; raise ConfigError where there is none."""
    sent = [submission for submission in submissions(root) if submission.sent()]
    if not sent:
        raise ConfigError(f"{root}: nothing was submitted to a cluster here; run the submit command again to go on")
    return sent[-1]
