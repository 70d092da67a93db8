"""The gate that all shards share: a tally on the shared file system that each of them changes in turn.

A shard asks for the turns of all its waiting calls at once, a second or so ahead, and says what settled ones have cost
in the same step; so dozens of shards are a few steps a second each.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import ParamSpec, TypeVar

from btrm.teacher.base import HaltError
from btrm.teacher.chain import Chain
from btrm.teacher.gate import Cost, Turn
from btrm.teacher.gate_step import NO_MONEY, Said, Step, job_id
from btrm.teacher.tally import AHEAD_S, LONGEST_PAUSE_S, Halt, Limits, Tally

P = ParamSpec("P")
T = TypeVar("T")
_LOG = logging.getLogger(__name__)
_NOTHING = Cost()
_POLL_S = 1.0  # a halt is seen by all within this
_STEP_S = 0.05  # between two steps of one shard
_GOOD_S = 0.75  # a turn that is not taken by then is given back: after a pause, or a process that stood still
_SPREAD_S = 5.0  # calls that a pause held back go on over so long
_LONG_PAUSE_S = 60.0  # a person who starts anew does not wait so long for what an earlier job was told
_TOLD_PAUSE_S = 5.0  # shorter ones are no news
_TELL_S = 30.0  # between two words about the same trouble
_PATIENCE_S = 60.0  # a file system that fails for longer ends the share


@dataclass(slots=True)
class _Waiter:
    most: Cost
    turn: asyncio.Future[float]


class SharedGate:
    """One shard's end of the gate. Open it with `open`; `name` is its journal's, and nobody else's."""

    def __init__(self, chain: Chain, name: str, limits: Limits, timeout_s: float) -> None:
        self._chain = chain
        self._name = name
        self._limits = limits
        self._stale_s = 2 * timeout_s
        self._waiters: deque[_Waiter] = deque()
        self._said = Said()
        self._spent = self._perhaps = self._held = 0.0
        self._halted: HaltError | None = None
        self._failed: Exception | None = None
        self._paused_until = 0.0
        self._complained = float("-inf")
        self._told_short = False
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "gate")
        self._stepping = asyncio.Lock()
        self._pump: asyncio.Task[None] | None = None

    async def open(self, spent: dict[str, float]) -> SharedGate:
        """Take part. `spent` is what the journals on disk tell, in dollars; the word of an earlier job is forgotten."""

        def join(record: bytes, now: float) -> bytes | None:
            tally = Tally.from_bytes(record)
            tally.mend(self._limits, now)
            tally.spent |= {name: max(usd, tally.spent.get(name, 0.0)) for name, usd in spent.items()}
            if tally.halted and tally.halted.job != job_id():
                tally.halted = None
            if tally.paused_by != job_id() and tally.paused_until > now + _LONG_PAUSE_S:
                tally.paused_until = 0.0
            joined.append(tally)
            return tally.to_bytes()

        joined: list[Tally] = []
        await self._in_thread(self._chain.update, join)
        self._learn(joined[-1])
        await self._in_thread(self._chain.sweep)
        self._pump = asyncio.create_task(self._run())
        return self

    async def admit(self, most: Cost) -> Turn:
        """Return when a call may be sent. Raises HaltError, and OSError where the file system fails."""
        while True:
            self.check()
            if not self._limits.any:
                await self._paused()
                self.check()
                return Turn(most)
            turn = Turn(most, await self._turn(most))
            try:
                await asyncio.sleep(min(turn.at - self._chain.clock.now(), 2 * AHEAD_S))  # the clock may be set back
                self.check()
            except BaseException:
                self._unused(turn)
                raise
            if self._paused_until <= self._chain.clock.now() <= turn.at + _GOOD_S:
                return turn
            self._unused(turn)

    async def _turn(self, most: Cost) -> float:
        waiter = _Waiter(most, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._wake.set()
        return await waiter.turn

    async def _paused(self) -> None:
        """Wait for the end of a pause; those who wait go on one by one."""
        while (left := self._paused_until - self._chain.clock.now()) > 0:
            await asyncio.sleep(left + random.uniform(0, min(_SPREAD_S, left)))
            self.check()

    async def settle(self, turn: Turn, spent: Cost) -> None:
        """Say what a call has cost; told to the others within a second."""
        if not self._limits.any:
            return
        self._unused(turn, spent)
        if spent == turn.most:  # an answer hardly costs the very most: this is one that never came
            self._perhaps += spent.usd
        if spent.tokens:
            self._said.used.append(spent.tokens)

    def release(self, holder: str, usd: float) -> None:
        """Give back what an attempt that has ended still holds; told to the others within a second."""
        if self._limits.budget_usd is not None and holder != self._name:
            self._said.released.append((holder, usd))

    def _unused(self, turn: Turn, spent: Cost = _NOTHING) -> None:
        """Give back what of a turn was not used."""
        self._held -= turn.most.usd
        self._spent += spent.usd
        self._said.money = self._limits.budget_usd is not None
        if self._limits.tpm is not None:
            self._said.given_back.append((turn.at, turn.most.tokens - spent.tokens))

    async def pause(self, seconds: float) -> None:
        """Hold all shards back for so long, by the file system's clock."""
        until = self._chain.clock.now() + seconds
        if until > self._paused_until + _GOOD_S:
            self._said.paused_until = until
            self._hold(until)
            self._wake.set()

    def _hold(self, until: float) -> None:
        """Send nothing until then, and say so."""
        if until <= self._paused_until:
            return
        left = until - max(self._paused_until, self._chain.clock.now())
        self._paused_until = until
        if left > _TOLD_PAUSE_S:
            _LOG.warning("nothing is sent until %s: the API asks for that", _clock_time(until))

    async def halt(self, error: HaltError) -> None:
        """Stop all shards; the first word stays."""
        if self._halted is None and self._said.halted is None:
            self._said.halted = Halt(error.cause, str(error), job_id(), self._chain.clock.now())
            async with self._stepping:
                await self._step()

    def check(self) -> None:
        """Raise what ended the asking, from the last look at the tally; OSError where there was none for a minute."""
        if self._halted is not None:
            raise HaltError(str(self._halted), self._halted.cause)
        if self._failed is not None:
            raise self._failed

    async def close(self) -> None:
        """Say the last costs and leave. What calls cut off under way may have cost stays held."""
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
            with suppress(OSError):
                async with self._stepping:
                    await self._step(leaving=True)
        self._thread.shutdown()

    async def _run(self) -> None:
        """Step whenever calls wait, and look for others' words at least every second."""
        delay, last = 0.0, time.monotonic()
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), _POLL_S)
            await asyncio.sleep(delay)
            self._wake.clear()
            try:
                async with self._stepping:
                    delay = await self._step()
                last = time.monotonic()
            except OSError as error:
                delay = _POLL_S
                self._complain(error)
                if time.monotonic() - last > _PATIENCE_S:
                    self._fail(error)
            except Exception as error:
                self._fail(error)
            if self._waiters:
                self._wake.set()

    def _complain(self, error: OSError) -> None:
        if time.monotonic() - self._complained > _TELL_S:
            self._complained = time.monotonic()
            _LOG.warning("the shared gate: %s; trying again every second, nothing is sent meanwhile", error)

    def _fail(self, error: Exception) -> None:
        """Let nobody wait any more."""
        self._failed = error
        self._refuse(error)

    def _refuse(self, error: Exception) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.turn.done():
                waiter.turn.set_exception(error)

    async def _step(self, *, leaving: bool = False) -> float:
        """Tell and ask once; hand out the turns; return how long to wait before the next step."""
        while self._waiters and self._waiters[0].turn.done():
            self._waiters.popleft()
        said, self._said = self._said, Said()
        asking = [] if leaving else [waiter.most for waiter in self._waiters]
        step = Step(self._name, self._limits, self._stale_s, said, asking, self._spent, self._perhaps, self._held)
        step.leaving = leaving
        try:
            tally = await self._in_thread(step.make, self._chain)
        except BaseException:
            self._said.add(said)
            raise
        self._learn(tally)
        for at in step.turns:
            waiter = self._waiters.popleft()
            self._held += waiter.most.usd
            if waiter.turn.done():
                self._unused(Turn(waiter.most, at))
            else:
                waiter.turn.set_result(at)
        if self._halted is not None:
            self._refuse(self._halted)
        if not self._waiters:
            return _STEP_S
        if step.short:
            self._tell_short(tally)
        # Turns that are taken in the middle of what is ahead leave none out, whoever comes next.
        late = step.free - AHEAD_S - self._chain.clock.now()
        return min(max(late, 0.0) + AHEAD_S * random.uniform(0.2, 0.5), _POLL_S)

    def _learn(self, tally: Tally) -> None:
        self._hold(tally.paused_until)
        self._paused_until = min(self._paused_until, self._chain.clock.now() + LONGEST_PAUSE_S)
        if tally.halted is not None:
            self._halted = tally.halted.error()

    def _tell_short(self, tally: Tally) -> None:
        """Say once that only others can let this shard go on: what they hold of the budget may be a dead one's."""
        others = [held for name, held in tally.held.items() if name != self._name and held.usd > NO_MONEY]
        if self._told_short or self._held > NO_MONEY or not others:
            return
        self._told_short = True
        usd, until = sum(held.usd for held in others), min(held.at for held in others) + self._stale_s
        _LOG.warning(
            "waiting for money: calls of %d other shards may cost $%.4f of the budget; "
            "a shard that says nothing until %s is taken for killed, and what it holds for spent",
            *(len(others), usd, _clock_time(until)),
        )

    async def _in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        call = partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


def _clock_time(at: float) -> str:
    """Return a time of the file system's clock for people."""
    return f"{datetime.fromtimestamp(at):%H:%M:%S}"
