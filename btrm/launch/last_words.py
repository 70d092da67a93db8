"""Why an attempt ended that could not say so itself: Slurm writes into a task's log why it killed it."""

from __future__ import annotations

import re
from pathlib import Path

from btrm.launch.failures import classify

# What comes from outside; whatever a stage itself fails with, its runner has written down.
_FROM_OUTSIDE = {"out_of_memory", "timeout", "preempted", "node_failure"}
_TAIL_BYTES = 1 << 16


def last_words(log: Path, first_line: str) -> str | None:
    """Return the class of failure that a log tells of, or None.

    A log holds all attempts of its job, each below its `first_line`; the last one that left more than that counts.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return None
    attempts = [
        part for part in re.split(rf"^\S+ {re.escape(first_line)}.*$", text, flags=re.MULTILINE) if part.strip()
    ]
    name = classify(attempts[-1], None, None).name if attempts else ""
    return name if name in _FROM_OUTSIDE else None
