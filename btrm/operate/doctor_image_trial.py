"""A command that is tried: how it ended, how long it took, what it said. Python alone."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

_SAID = 2000  # characters of a command's first and last words that are kept


@dataclass(frozen=True, slots=True)
class Trial:
    """A command that was tried: its exit status, how long it took and what it said."""

    code: int
    seconds: float
    said: str


def attempt(words: Sequence[str], timeout_s: float) -> Trial:
    """Run a command and keep what it says."""
    started = time.monotonic()
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
        code, said = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired:
        code, said = 124, f"no answer in {timeout_s:.0f} s"
    except OSError as error:
        code, said = 127, f"{words[0]}: {error.strerror}"
    return Trial(
        code, time.monotonic() - started, said if len(said) < 2 * _SAID else f"{said[:_SAID]}\n…\n{said[-_SAID:]}"
    )
