"""One step of a shard at the shared tally: what happened here is told, and turns are taken for the calls that wait."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from btrm.teacher.base import HaltError
from btrm.teacher.chain import Chain
from btrm.teacher.gate import Cost
from btrm.teacher.tally import AHEAD_S, Halt, Held, Limits, Tally

_NO_MONEY = 1e-9  # dollars; sums of floats are not quite nothing


def job_id() -> str:
    """Return what the processes of one job or array have in common; a process by itself is its own job."""
    return os.environ.get("SLURM_ARRAY_JOB_ID") or os.environ.get("SLURM_JOB_ID") or f"pid {os.getpid()}"


@dataclass(slots=True)
class Said:
    """What has happened here and the tally does not know yet."""

    given_back: list[tuple[float, int]] = field(default_factory=list[tuple[float, int]])
    used: list[int] = field(default_factory=list[int])
    released: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])
    paused_until: float = 0.0
    halted: Halt | None = None
    money: bool = False

    @property
    def anything(self) -> bool:
        """Whether there is something to tell."""
        told = (self.given_back, self.used, self.released, self.paused_until, self.halted, self.money)
        return any(told)

    def add(self, other: Said) -> None:
        """Take what was said before and did not arrive."""
        self.given_back += other.given_back
        self.used += other.used
        self.released += other.released
        self.paused_until = max(self.paused_until, other.paused_until)
        self.halted = other.halted or self.halted
        self.money = self.money or other.money


@dataclass(slots=True)
class Step:
    """A change of the tally by the shard `name`. `spent` and `held` are its dollars in all: telling them twice is once.

    After `make`, `turns` are the times of the first calls of `asking`, and `free` is when the next one may go. What the
    calls of a shard that is `leaving` may still cost stays held.
    """

    name: str
    limits: Limits
    stale_s: float
    said: Said
    asking: list[Cost]
    spent: float
    held: float
    leaving: bool = False
    turns: list[float] = field(default_factory=list[float])
    free: float = 0.0

    def make(self, chain: Chain) -> Tally:
        """Make the change, where there is any; return the tally."""
        tally = Tally()

        def change(record: bytes, now: float) -> bytes | None:
            nonlocal tally
            tally = Tally.from_bytes(record)
            before = tally.halted
            self._tell(tally, now)
            self._take(tally, now)
            changed = self.said.anything or self.turns or self.leaving or tally.halted != before
            return tally.to_bytes() if changed else None

        if self.said.anything or self.asking or self.leaving:
            chain.update(change)
            return tally
        return Tally.from_bytes(chain.look())

    def _tell(self, tally: Tally, now: float) -> None:
        for at, tokens in self.said.given_back:
            tally.give_back(at, tokens)
        for tokens in self.said.used:
            tally.learn(tokens)
        for holder, usd in self.said.released:
            tally.release(holder, usd)
        tally.paused_until = max(tally.paused_until, self.said.paused_until)
        tally.halted = tally.halted or self.said.halted
        if self.limits.budget_usd is not None:
            tally.spent[self.name] = max(self.spent, tally.spent.get(self.name, 0.0))
            tally.held[self.name] = Held(self.held, 0.0 if self.leaving else now)
            if self.leaving and self.held < _NO_MONEY:
                del tally.held[self.name]

    def _take(self, tally: Tally, now: float) -> None:
        """Take turns for as many calls as there are some for."""
        self.turns, self.free = [], now
        for most in self.asking:
            if tally.halted is not None:
                return
            try:
                affordable = tally.affords(self.limits, most.usd, now - self.stale_s)
            except HaltError as error:
                tally.halted = Halt(error.cause, str(error), job_id(), now)
                return
            if not affordable:
                self.free = now + AHEAD_S
                return
            if (at := tally.take(self.limits, most, now)) is None:
                self.free = tally.free(self.limits, most, now)
                return
            self.turns.append(at)
            if self.limits.budget_usd is not None:
                tally.held[self.name].usd += most.usd
