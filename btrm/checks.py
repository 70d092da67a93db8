"""What is said of a thing that was looked at: a line a check, with the fix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["OK", "WARN", "FAIL"]


@dataclass(frozen=True, slots=True)
class Check:
    """One line. A FAIL keeps things from working, a WARN may; `fix` says what to do about either."""

    level: Level
    what: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.level:<5} {self.what}" + (f"  -> {self.fix}" if self.fix else "")
