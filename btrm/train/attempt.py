"""Attempts that fail: before there is anything to resume from, they leave nothing but their log."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from btrm.checkpoints import checkpoints, is_whole
from btrm.leases import Fenced, check_held
from btrm.runs import StageRun
from btrm.stopping import Stopped
from btrm.train.launch import JobError
from btrm.train.servers import ServerError

ORDER = "trainer.json"
FAILURE_LOG = ".last_failure.log"
_LEAVINGS = (ORDER, "server.json", "rows.jsonl", "logs", "checkpoints", "set_aside")


def trainer_log(run: StageRun) -> Path:
    """Return where a stage's trainer process writes what it has to say."""
    return run.dir / "logs" / "trainer.log"


def whole_now(run: StageRun) -> list[Path]:
    """Return the finished checkpoints by step, and leave all as it is."""
    return [path for path in checkpoints(run.dir / "checkpoints") if is_whole(path)]


@contextmanager
def leaving_nothing(run: StageRun) -> Generator[None]:
    """Where the block ends in an error and there is nothing to resume from, clear the directory of the attempt.

    The stage can then be tried with other settings. The log stays, as a dot-file, and the error names it. An attempt
    that was asked to stop leaves all as it is, for the next one; so does one that a newer attempt has replaced.
    """
    try:
        yield
    except (Stopped, Fenced):
        raise
    except BaseException as error:
        if whole_now(run) or (run.dir / "model").exists():
            raise
        check_held()
        kept = _clear(run)
        if isinstance(error, JobError | ServerError):
            told = str(error)
            for log in error.logs:
                told = told.replace(str(log), str(kept))
            error.args = (told,)
        raise


def _clear(run: StageRun) -> Path:
    kept = run.dir / FAILURE_LOG
    logs = sorted((run.dir / "logs").glob("*.log"))
    heads = [f"== {log.name}\n" if len(logs) > 1 else "" for log in logs]
    if logs:
        kept.write_text("".join(head + log.read_text(errors="replace") for head, log in zip(heads, logs, strict=True)))
    for name in _LEAVINGS:
        path = run.dir / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return kept
