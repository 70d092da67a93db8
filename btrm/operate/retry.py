"""Going on with a run that has stopped: by hand, what its controller does by itself."""

from __future__ import annotations

from pathlib import Path

from btrm.config import ConfigError
from btrm.launch.control import resend
from btrm.launch.submission import SentJob, Submission, submissions


def retry(root: Path) -> list[SentJob]:
    """Send what is neither complete nor under way, and forget past failures; return the jobs."""
    return resend(newest(root), reset=True)


def retry_failed(root: Path) -> list[SentJob]:
    """Send the steps whose elements failed, and nothing else; their successors follow when they are done."""
    submission = newest(root)
    failed = {
        state.step.removesuffix(".commit")
        for state in submission.states()
        if state.last is not None and state.last.outcome in {"failed", "lost"}
    }
    return resend(submission, reset=True, only=failed) if failed else []


def newest(root: Path) -> Submission:
    """Return a run's newest submission that sent jobs; raise ConfigError where there is none."""
    sent = [submission for submission in submissions(root) if submission.sent()]
    if not sent:
        raise ConfigError(f"{root}: nothing was submitted to a cluster here; run the submit command again to go on")
    return sent[-1]
