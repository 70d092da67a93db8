"""Why an attempt ended that could not say so itself: Slurm writes into a task's log why it killed it."""

from __future__ import annotations

import re
from pathlib import Path

from btrm.launch.failures import classify

# What comes from outside; whatever a stage itself fails with, its runner has written down.
_FROM_OUTSIDE = {"out_of_memory", "timeout", "preempted", "node_failure"}
_AT_THE_DOOR = {"image_changed", "image_unfit"}  # told in the log alone: btrm did not run there
_BEHIND = ("srun: ", "slurmstepd")
_TAIL_BYTES = 1 << 16


def refusal(log: Path) -> tuple[str, str] | None:
    """Return (class, line) where a job's script, or the first look at its image, would not start the task; or None.

    It is the log's last line, of which srun's own may stand behind: no later attempt has begun.
    """
    lines = [line for line in _tail(log).splitlines() if line.strip() and not line.startswith(_BEHIND)]
    name = classify(lines[-1], None, None).name if lines else ""
    return (name, lines[-1]) if name in _AT_THE_DOOR else None


def last_words(log: Path, first_line: str) -> str | None:
    """Return the class of failure that a log tells of, or None.

    A log holds all attempts of its job, each below its `first_line`; the last one that left more than that counts.
    """
    parts = re.split(rf"^\S+ {re.escape(first_line)}.*$", _tail(log), flags=re.MULTILINE)
    attempts = [part for part in parts if part.strip()]
    name = classify(attempts[-1], None, None).name if attempts else ""
    return name if name in _FROM_OUTSIDE else None


def _tail(log: Path) -> str:
    """Return a log's end; nothing where it cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
