"""What all shards of a job share while they ask: the rate, the budget, pauses, and the word that nobody goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from btrm.teacher.base import HaltError


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call takes from the limits: tokens in and out, and dollars. One request, always."""

    tokens: int = 0
    usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Turn:
    """A call's turn: the most that it may cost, and when it came (seconds since 1970; 0 where nothing is counted)."""

    most: Cost
    at: float = 0.0


class Gate(Protocol):
    """Where a call waits for its turn."""

    async def admit(self, most: Cost) -> Turn:
        """Return when a call that may cost this much may be sent. Raises HaltError where nobody may go on."""
        ...

    async def settle(self, turn: Turn, spent: Cost) -> None:
        """Say what an admitted call has cost after all; what it has not is there for others."""
        ...

    def release(self, holder: str, usd: float) -> None:
        """Give back what an ended attempt, by its journal's name, still holds for calls that are settled now."""
        ...

    async def pause(self, seconds: float) -> None:
        """Let nobody send anything for so long: the API has asked for that."""
        ...

    async def halt(self, error: HaltError) -> None:
        """Tell everyone to stop, and why; the first word stays."""
        ...

    def check(self) -> None:
        """Raise HaltError where someone has said so; costs nothing."""
        ...

    async def close(self) -> None:
        """Give back what is held."""
        ...


class OpenGate:
    """No limits, and nobody else: for backends of this process."""

    async def admit(self, most: Cost) -> Turn:
        """Return at once."""
        return Turn(most)

    async def settle(self, turn: Turn, spent: Cost) -> None:
        """Nothing is counted."""

    def release(self, holder: str, usd: float) -> None:
        """Nothing is held."""

    async def pause(self, seconds: float) -> None:
        """Nobody asks for that here."""

    async def halt(self, error: HaltError) -> None:
        """Nobody else listens."""

    def check(self) -> None:
        """Nobody else speaks."""

    async def close(self) -> None:
        """Nothing is held."""
