"""The arithmetic of the shared gate: when a call may go, what all of them have spent, and who said stop."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import orjson

from btrm.config import ConfigError
from btrm.teacher.base import HaltCause, HaltError
from btrm.teacher.gate import Cost

# Calls are spaced for a minute of 61.2 s: what is sent up to a second later than granted keeps the limit too.
_MINUTE_S = 61.2
AHEAD_S = 1.5  # turns are taken so long before they come: a shard that dies costs no more than its own of them
LONGEST_PAUSE_S = 3600.0
_CLOCKS_S = 1.0  # by which the clocks of nodes may differ
_NEW = 0.05  # weight of the newest call in the mean


@dataclass(frozen=True, slots=True)
class Limits:
    """What all shards together may use a minute, and in all; None: no limit."""

    rpm: int | None = None
    tpm: int | None = None
    budget_usd: float | None = None

    @property
    def any(self) -> bool:
        """Whether a call has to ask at all."""
        return any(limit is not None for limit in (self.rpm, self.tpm, self.budget_usd))


@dataclass(frozen=True, slots=True)
class Halt:
    """The word that nobody goes on, of which job, and when (the file system's time)."""

    cause: HaltCause
    message: str
    job: str
    at: float

    def error(self) -> HaltError:
        """Return what the first one was told."""
        return HaltError(self.message, self.cause)


@dataclass(slots=True)
class Held:
    """Dollars that a shard's calls under way may cost at most, and when it last said so."""

    usd: float
    at: float


@dataclass(slots=True)
class Tally:
    """What the shards share. Times are the file system's, in seconds since 1970.

    `requests` and `tokens` are the next free times of each rate; `window` are the tokens granted in each second of the
    last minute, at most until a call is settled; `mean` is the mean of what calls used. `paused_by` is the job that was
    told to pause. `spent` and `held` are dollars by journal; `perhaps` is what of `spent` calls may have cost whose
    answers never came. What a shard that was killed held stays held: its calls may have been charged.
    """

    requests: float = 0.0
    tokens: float = 0.0
    mean: float | None = None
    window: dict[int, int] = field(default_factory=dict[int, int])
    paused_until: float = 0.0
    spent: dict[str, float] = field(default_factory=dict[str, float])
    held: dict[str, Held] = field(default_factory=dict[str, Held])
    halted: Halt | None = None
    paused_by: str = ""
    perhaps: dict[str, float] = field(default_factory=dict[str, float])

    @classmethod
    def from_bytes(cls, record: bytes) -> Tally:
        """Read a record; one that a power cut has left empty or torn counts as none."""
        try:
            values = cast("dict[str, Any]", orjson.loads(record))
        except orjson.JSONDecodeError:
            return cls()
        values["window"] = {int(second): tokens for second, tokens in values["window"].items()}
        values["held"] = {name: Held(**held) for name, held in values["held"].items()}
        values["halted"] = values["halted"] and Halt(**values["halted"])
        return cls(**values)

    def to_bytes(self) -> bytes:
        """Return the record."""
        return orjson.dumps(asdict(self), option=orjson.OPT_NON_STR_KEYS)

    def mend(self, limits: Limits, now: float) -> bool:
        """Correct times further ahead than anybody goes under these limits; say whether there were any.

        The clock was set back, or the limits were lower before.
        """
        before = (self.requests, self.tokens, self.paused_until, self.window)
        ahead = now + AHEAD_S
        self.requests = _within(self.requests, ahead + (_MINUTE_S / limits.rpm if limits.rpm else 0.0))
        spacing = min(self.mean or limits.tpm, limits.tpm) * _MINUTE_S / limits.tpm if limits.tpm else 0.0
        self.tokens = _within(self.tokens, ahead + spacing)
        self.paused_until = _within(self.paused_until, now + LONGEST_PAUSE_S)
        self.window = {}
        for second, tokens in before[3].items():
            second = math.floor(_within(second, ahead))
            self.window[second] = self.window.get(second, 0) + tokens
        return before != (self.requests, self.tokens, self.paused_until, self.window)

    def take(self, limits: Limits, most: Cost, now: float) -> float | None:
        """Take a turn and return its time, at most AHEAD_S from now; None where there is none so soon.

        Raises ConfigError for a call that can never go.
        """
        at = self.free(limits, most, now)
        if at > now + AHEAD_S:
            return None
        if limits.rpm is not None:
            self.requests = at + _MINUTE_S / limits.rpm
        if limits.tpm is not None:
            second = math.floor(at)
            self.window[second] = self.window.get(second, 0) + most.tokens
            self.tokens = at + min(self.mean or most.tokens, most.tokens) * _MINUTE_S / limits.tpm
        return at

    def free(self, limits: Limits, most: Cost, now: float) -> float:
        """Return the first time at which a call may go."""
        at = max(now, self.paused_until)
        if limits.rpm is not None:
            at = max(at, self.requests)
        if limits.tpm is None:
            return at
        check_size(limits, most)
        return self._room(max(at, self.tokens), limits.tpm - most.tokens)

    def _room(self, at: float, room: int) -> float:
        """Return the first time from which the minute before has granted no more than `room` tokens."""
        self.window = {second: tokens for second, tokens in self.window.items() if second + 1 + _MINUTE_S > at}
        total = sum(self.window.values())
        for second in sorted(self.window):
            if total <= room:
                break
            total -= self.window[second]
            at = max(at, second + 1 + _MINUTE_S)
        return at

    def give_back(self, at: float, tokens: int) -> None:
        """Correct what was granted at a time by so many tokens."""
        second = math.floor(at)
        if second in self.window:
            self.window[second] = max(self.window[second] - tokens, 0)

    def learn(self, tokens: int) -> None:
        """Take what a call has used into the mean that calls are spaced by."""
        self.mean = tokens if self.mean is None else self.mean + _NEW * (tokens - self.mean)

    def release(self, holder: str, usd: float) -> None:
        """Let go of dollars that someone held."""
        if holder in self.held:
            self.held[holder].usd = max(self.held[holder].usd - usd, 0.0)

    def affords(self, limits: Limits, usd: float, stale: float) -> bool:
        """Say whether so many dollars are there now; False: perhaps when calls under way are settled.

        Raises HaltError where they will never be. Shards that were silent since `stale` will settle nothing.
        """
        if limits.budget_usd is None:
            return True
        spent, held = sum(self.spent.values()), sum(held.usd for held in self.held.values())
        if spent + held + usd <= limits.budget_usd:
            return True
        lost = sum(held.usd for held in self.held.values() if held.at < stale)
        if spent + lost + usd <= limits.budget_usd:
            return False
        perhaps = sum(self.perhaps.values())
        doubts = {"calls whose answer never came": perhaps, "calls whose shard was killed": lost}
        told = " and ".join(f"${some:.4f} by {calls}" for calls, some in doubts.items() if some)
        raise HaltError(
            f"${spent - perhaps:.4f} of budget_usd {limits.budget_usd:g} are spent"
            + (f", ${perhaps + lost:.4f} perhaps ({told})" if told else "")
            + f", and the next call may cost ${usd:.4f}: a larger --budget-usd goes on",
            "budget",
        )


def _within(at: float, latest: float) -> float:
    """Return a time, or the latest that it can be; what another node's clock may explain stays."""
    return latest if at > latest + _CLOCKS_S else at


def check_size(limits: Limits, most: Cost) -> None:
    """Raise ConfigError for a call that alone is more than a minute allows."""
    if limits.tpm is not None and most.tokens > limits.tpm:
        raise ConfigError(
            f"tpm {limits.tpm}: one call may take {most.tokens} tokens, in and out: "
            "a larger --tpm, a smaller --max-tokens or --batch-size, or no limit"
        )
