"""One step of a shard at the shared tally: what happened here is told, and turns are taken for the calls that wait."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from btrm.locks import OWNER
from btrm.teacher.base import HaltError
from btrm.teacher.chain import Chain
from btrm.teacher.gate import Cost
from btrm.teacher.tally import AHEAD_S, Halt, Held, Limits, Tally

NO_MONEY = 1e-9  # dollars; sums of floats are not quite nothing
_PROCESS = f"process {uuid.uuid4().hex}"  # numbers of processes come again: in every container it is the same one


def job_id() -> str:
    """Return what the processes of one job or array have in common.

    A process that no job's runner has started is its own job: in one allocation of Slurm many may come in turn.
    """
    if not os.environ.get(OWNER):
        return _PROCESS
    return os.environ.get("SLURM_ARRAY_JOB_ID") or os.environ.get("SLURM_JOB_ID") or _PROCESS


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

    `perhaps` is what of `spent` calls may have cost whose answers never came. After `make`, `turns` are the times of
    the first calls of `asking`, and `free` is when the next one may go; `short` says that it waits for money. What the
    calls of a shard that is `leaving` may still cost stays held.
    """

    name: str
    limits: Limits
    stale_s: float
    said: Said
    asking: list[Cost]
    spent: float
    perhaps: float
    held: float
    leaving: bool = False
    turns: list[float] = field(default_factory=list[float])
    free: float = 0.0
    short: bool = False

    def make(self, chain: Chain) -> Tally:
        """Make the change, where there is any; return the tally."""
        tally = Tally()

        def change(record: bytes, now: float) -> bytes | None:
            nonlocal tally
            tally = Tally.from_bytes(record)
            before, mended = tally.halted, tally.mend(self.limits, now)
            self._tell(tally, now)
            self._take(tally, now, chain.directory)
            changed = self.said.anything or self.turns or self.leaving or tally.halted != before
            return tally.to_bytes() if changed or mended else None

        if not (self.said.anything or self.asking or self.leaving):
            tally = Tally.from_bytes(chain.look())
            if not tally.mend(self.limits, chain.clock.now()):
                return tally
        chain.update(change)
        return tally

    def _tell(self, tally: Tally, now: float) -> None:
        for at, tokens in self.said.given_back:
            tally.give_back(at, tokens)
        for tokens in self.said.used:
            tally.learn(tokens)
        for holder, usd in self.said.released:
            tally.release(holder, usd)
        if self.said.paused_until > tally.paused_until:
            tally.paused_until, tally.paused_by = self.said.paused_until, job_id()
        tally.halted = tally.halted or self.said.halted
        if self.limits.budget_usd is not None:
            tally.spent[self.name] = max(self.spent, tally.spent.get(self.name, 0.0))
            if self.perhaps > NO_MONEY:
                tally.perhaps[self.name] = self.perhaps
            tally.held[self.name] = Held(self.held, 0.0 if self.leaving else now)
            if self.leaving and self.held < NO_MONEY:
                del tally.held[self.name]

    def _take(self, tally: Tally, now: float, directory: Path) -> None:
        """Take turns for as many calls as there are some for."""
        self.turns, self.free, self.short = [], now, False
        for most in self.asking:
            if tally.halted is not None:
                return
            try:
                affordable = tally.affords(self.limits, most.usd, now - self.stale_s)
            except HaltError as error:
                tally.halted = Halt(error.cause, f"{error}{_counted_anew(tally, directory)}", job_id(), now)
                return
            if not affordable:
                self.free, self.short = now + AHEAD_S, True
                return
            if (at := tally.take(self.limits, most, now)) is None:
                self.free = tally.free(self.limits, most, now)
                return
            self.turns.append(at)
            if self.limits.budget_usd is not None:
                tally.held[self.name].usd += most.usd


def _counted_anew(tally: Tally, directory: Path) -> str:
    """Say how to go on without what was perhaps never charged; empty where there is no doubt."""
    doubtful = any(tally.perhaps.values()) or any(held.usd > NO_MONEY for held in tally.held.values())
    return f"; or remove {directory}, and only what is in the journals counts" if doubtful else ""
