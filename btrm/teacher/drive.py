"""Asking many calls at a time: each until it is answered or given up, and each answer on disk before it counts."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby

from btrm.leases import check_held
from btrm.teacher.base import Backend, Call, Fault, HaltError, Reply, RequestError, TransientError, Usage
from btrm.teacher.gate import Cost, Gate, Turn
from btrm.teacher.journal import Entry, Journal, entry_of

_LOG = logging.getLogger(__name__)
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 1.0, 60.0
_DRAIN_S = 20.0  # Slurm's usual grace is 30 s: answers that are under way are waited for, they are paid for
_GATHER_S = 0.05  # answers that come so close together are handed over together
# A server that has answered, and answers nobody now: how long until that is an outage, and until nobody waits for it.
_SILENT_S, _OUTAGE_S = 5.0, 1800.0
_HOPELESS = 20  # so many calls that fail in a row are not the calls' fault
_UNREAD_S = 1.0  # for an answer that is there and not read yet
_TELL_S = 60.0
_CHECK_S = 1.0  # between two looks for a newer attempt, or for others' word that nobody goes on
_FULL_S = 1.0  # between two tries of a journal whose disk is full
# What failed so may have been answered, and charged, all the same.
_PERHAPS_CHARGED: frozenset[Fault] = frozenset({"timeout", "connection", "garbled"})


@dataclass(slots=True)
class _Asked:
    """A call on its way: what went wrong so far, and when; its turn."""

    call: Call
    faults: list[Fault]
    failed: list[float]
    turn: Turn
    sent: float

    @property
    def attempts(self) -> int:
        return len(self.faults) + 1


@dataclass(slots=True)
class Asker:
    """Everything that a call passes on its way: the gate, the backend, the journal.

    `most` is the largest cost that a call can have, `usd` the price of what it used; `request_hash` names the request.
    `led`: such calls wait for the first of those that share their context, to find it in the API's cache.
    """

    backend: Backend
    gate: Gate
    journal: Journal
    concurrency: int
    max_attempts: int
    timeout_s: float
    most: Callable[[Call], Cost]
    usd: Callable[[Usage], float | None]
    request_hash: Callable[[Call], str]
    led: Callable[[Call], bool] = lambda _: False
    _under_way: int = 0  # sent, and not yet on disk
    _unwritten: int = 0  # answers that a full disk does not take
    _closed: bool = False
    _checked: float = 0.0
    _answered: float = math.inf  # when the last answer came
    _told: float = 0.0
    _troubled: int = 0  # calls under way that have failed before
    _tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    _ended: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])
    _doubted: list[Entry] = field(default_factory=list[Entry])  # failures since the last answer
    _ready: list[Entry] = field(default_factory=list[Entry])
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, calls: Iterable[Call], wake_s: float = 1.0) -> AsyncGenerator[list[Entry]]:
        """Yield the entries that have come, at least every `wake_s` seconds (then perhaps none).

        Raises HaltError where nobody may go on, Fenced where a newer attempt has taken this one's place, OSError where
        an answer could not be written: nothing more is sent then, and what was under way is handed over before.
        """
        slots = asyncio.Semaphore(self.concurrency)
        groups = _groups(calls, self.led)
        workers = {self._start(self._work(groups, slots)) for _ in range(self.concurrency)}
        problem: Exception | None = None
        try:
            while workers and problem is None:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), wake_s)
                    await asyncio.sleep(_GATHER_S)
                self._news.clear()
                ended, self._ended[:] = self._ended[:], []
                workers.difference_update(ended)
                problem = self._problem(ended)
                if problem is None:
                    yield self._handed()
            if problem is None:
                await self._believe()
            else:
                await self._drain()
            yield self._handed()
        finally:
            await self._drain()
        if problem is not None:
            raise problem

    async def close(self) -> None:
        """Give back what the backend and the gate hold."""
        try:
            await self.backend.close()
        finally:
            await self.gate.close()

    def _problem(self, ended: list[asyncio.Task[None]]) -> Exception | None:
        """Return why nobody goes on: what a task raised, a newer attempt, others' word."""
        try:
            for task in ended:
                task.result()
            if time.monotonic() - self._checked > _CHECK_S:
                self._checked = time.monotonic()
                check_held()
                self.gate.check()
            return None
        except HaltError as error:
            return self._first_word() or error
        except Exception as error:
            return error

    def _first_word(self) -> HaltError | None:
        """Return what the first shard was told, so that all end with one message."""
        try:
            self.gate.check()
        except HaltError as error:
            return error
        return None

    def _handed(self) -> list[Entry]:
        some, self._ready[:] = self._ready[:], []
        return some

    def _keep(self, entry: Entry) -> None:
        self._ready.append(entry)
        self._news.set()

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._end)
        return task

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._ended.append(task)
        if not task.cancelled():
            task.exception()  # of several that raise, one is told; asyncio would print the others
        self._news.set()

    async def _drain(self) -> None:
        """Send nothing more; wait a while for what was sent, since it is paid for."""
        self._closed = True
        deadline = time.monotonic() + _DRAIN_S
        while self._under_way and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._ended, return_exceptions=True)

    async def _work(self, groups: Iterator[list[Call]], slots: asyncio.Semaphore) -> None:
        for first, *rest in groups:
            await self._one(first, slots)
            if rest:
                await asyncio.wait([self._start(self._one(call, slots)) for call in rest])
            if self._closed:
                return

    async def _one(self, call: Call, slots: asyncio.Semaphore) -> None:
        """Ask until there is an answer, or no more hope of one; keep it when it is on disk."""
        faults: list[Fault] = []
        failed: list[float] = []
        async with slots:
            while True:
                turn = await self.gate.admit(self.most(call))
                if self._closed or self._unwritten:
                    await self.gate.settle(turn, Cost())
                    if self._closed:
                        return
                    await asyncio.sleep(_FULL_S)
                    continue
                try:
                    self._under_way += 1
                    await self._attempt(_Asked(call, faults, failed, turn, time.monotonic()))
                    self._troubled -= bool(faults)
                    return
                except TransientError as error:
                    self._troubled += not faults
                    faults.append(error.fault)
                    failed.append(time.monotonic())
                    wait_s = self._back_off(len(faults), error)
                finally:
                    self._under_way -= 1
                await asyncio.sleep(wait_s)

    async def _attempt(self, asked: _Asked) -> None:
        """Ask once. Raises TransientError where another attempt is worth it and allowed, and HaltError."""
        try:
            reply = await self._sent(asked.call)
        except TransientError as error:
            charged = asked.turn.most if error.fault in _PERHAPS_CHARGED else Cost()
            await self.gate.settle(asked.turn, charged)
            await self._pause(error, asked.attempts)
            if self._counted(asked, error) < self.max_attempts:
                raise
            entry = self._entry(asked, Reply(str(error), "error"), [*asked.faults, error.fault])
            return await self._doubt(entry)
        except RequestError as error:
            reply = Reply(str(error), error.finish_reason)
        except HaltError as error:
            await self.gate.settle(asked.turn, Cost())
            await self.gate.halt(error)
            raise
        entry = self._entry(asked, reply, asked.faults)
        if reply.finish_reason == "error":
            await self.gate.settle(asked.turn, Cost())
            return await self._doubt(entry)
        await self._write(entry)
        await self.gate.settle(asked.turn, Cost(reply.usage.prompt + reply.usage.output, entry.usd or 0.0))
        if reply.pause_s:
            await self.gate.pause(reply.pause_s)
        return await self._believe()

    def _counted(self, asked: _Asked, error: TransientError) -> int:
        """Return how many tries of a call count: in an outage of the server, those that others' answers came after.

        An outage fails all that is under way; the few calls at an end that nobody will answer fail by themselves.
        """
        now = time.monotonic()
        silent_s = now - self._answered
        if not _SILENT_S < silent_s < _OUTAGE_S or self._troubled < self.concurrency:
            return asked.attempts
        if now - max(self._told, self._answered) > _TELL_S:
            self._told = now
            _LOG.warning("no answer for %.0f s (%s); trying on", silent_s, error)
        return 1 + sum(failed < self._answered for failed in asked.failed)

    async def _doubt(self, entry: Entry) -> None:
        """Hold a failure back until another call is answered: where none is, it says nothing about its own call.

        Raises HaltError for many in a row: a parameter that the API refuses, a server that is not there. They are in no
        journal, so a rerun asks for them again.
        """
        self._doubted.append(entry)
        if len(self._doubted) >= _HOPELESS:
            error = HaltError(f"{len(self._doubted)} calls in a row failed, the last one with: {entry.text}", "failing")
            await self.gate.halt(error)
            raise error

    async def _believe(self) -> None:
        """Take the failures since the last answer for their calls' own."""
        self._answered = time.monotonic()
        doubted, self._doubted = self._doubted, []
        for entry in doubted:
            await self._write(entry)

    async def _sent(self, call: Call) -> Reply:
        answer = asyncio.ensure_future(self.backend.ask(call))
        try:
            # A process that stood still finds its time over, and answers unread that came in time: they are paid for.
            for wait_s in (self.timeout_s, _UNREAD_S):
                done, _ = await asyncio.wait([answer], timeout=None if math.isinf(wait_s) else wait_s)
                if done:
                    return answer.result()
        finally:
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)
        raise TransientError(f"no answer in {self.timeout_s:g} s", "timeout")

    def _entry(self, asked: _Asked, reply: Reply, faults: list[Fault]) -> Entry:
        latency_s = time.monotonic() - asked.sent
        name, usd, attempts = self.request_hash(asked.call), self.usd(reply.usage), asked.attempts
        return entry_of(asked.call, name, reply, usd, latency_s, attempts, time.time(), faults)

    async def _write(self, entry: Entry) -> None:
        """Put an answer on disk, and hand it over.

        A disk is often full for a moment: nothing is sent, and this tries again, for a while. Raises OSError after
        that: the answer is lost.
        """
        deadline, failed = time.monotonic() + _DRAIN_S, 0
        try:
            while True:
                try:
                    await self.journal.write(entry)
                    return self._keep(entry)
                except OSError as error:
                    if time.monotonic() > deadline:
                        raise
                    _LOG.warning("an answer could not be written (%s); trying again", error)
                    self._unwritten += not failed
                    failed = 1
                await asyncio.sleep(_FULL_S)
        finally:
            self._unwritten -= failed

    def _back_off(self, attempt: int, error: TransientError) -> float:
        """Return the seconds until the next attempt: no sooner than the API asks for, and drawn, so that calls part."""
        return max(error.retry_after_s or 0.0, random.uniform(0, _longest(attempt)))

    async def _pause(self, error: TransientError, attempt: int) -> None:
        """Hold all shards back where the API asks for that."""
        if error.retry_after_s or error.fault == "rate_limited":
            await self.gate.pause(error.retry_after_s or _longest(attempt))


def _longest(attempt: int) -> float:
    return min(_FIRST_BACKOFF_S * 2 ** (attempt - 1), _LONGEST_BACKOFF_S)


def _groups(calls: Iterable[Call], led: Callable[[Call], bool]) -> Iterator[list[Call]]:
    """Cut calls into groups of which the first goes alone; groups of one where they need not wait."""
    for _, calls_together in groupby(calls, key=lambda call: call.context or call.items):
        first, *rest = calls_together
        if rest and led(first):
            yield [first, *rest]
        else:
            yield from ([call] for call in (first, *rest))
