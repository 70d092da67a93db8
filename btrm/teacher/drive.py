"""Asking many calls at a time: each until it is answered or given up, and each answer on disk before it counts."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby

from btrm.teacher.base import Backend, Call, Fault, HaltError, Reply, RequestError, TransientError, Usage
from btrm.teacher.gate import Cost, Gate
from btrm.teacher.journal import Entry, Journal, entry_of

_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 1.0, 60.0
_DRAIN_S = 20.0  # Slurm's usual grace is 30 s: answers that are under way are waited for, they are paid for


@dataclass(slots=True)
class Asker:
    """Everything that a call passes on its way: the gate, the backend, the journal.

    `most` is the largest cost that a call can have, `usd` the price of what it used; `request_hash` names the request.
    `lead_first`: of calls that share their context the first is answered before the others go, so that they find it in
    the API's cache.
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
    lead_first: bool = False
    faults: Counter[Fault] = field(default_factory=lambda: Counter[Fault]())
    _under_way: int = 0  # sent, and not yet on disk
    _closed: bool = False

    async def run(self, calls: Iterable[Call], wake_s: float = 1.0) -> AsyncGenerator[list[Entry]]:
        """Yield the entries that have come, at least every `wake_s` seconds (then perhaps none).

        Raises HaltError where nobody may go on, after what was under way is on disk.
        """
        ready: list[Entry] = []
        arrived = asyncio.Event()
        slots = asyncio.Semaphore(self.concurrency)
        groups = _groups(calls, self.lead_first)

        def keep(entry: Entry) -> None:
            ready.append(entry)
            arrived.set()

        workers = [asyncio.create_task(self._work(groups, slots, keep)) for _ in range(self.concurrency)]
        for worker in workers:
            worker.add_done_callback(lambda _: arrived.set())
        try:
            while workers:
                with suppress(TimeoutError):
                    await asyncio.wait_for(arrived.wait(), wake_s)
                arrived.clear()
                some, ready[:] = ready[:], []
                yield some
                for worker in [worker for worker in workers if worker.done()]:
                    workers.remove(worker)
                    worker.result()
        finally:
            await self._drain(workers)

    async def close(self) -> None:
        """Give back what the backend and the gate hold."""
        await self.backend.close()
        await self.gate.close()

    async def _drain(self, workers: list[asyncio.Task[None]]) -> None:
        """Send nothing more; wait a while for what was sent, since it is paid for."""
        self._closed = True
        deadline = time.monotonic() + _DRAIN_S
        while self._under_way and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    async def _work(
        self, groups: Iterator[list[Call]], slots: asyncio.Semaphore, keep: Callable[[Entry], None]
    ) -> None:
        for group in groups:
            keep(await self._one(group[0], slots))
            for entry in asyncio.as_completed([self._one(call, slots) for call in group[1:]]):
                keep(await entry)

    async def _one(self, call: Call, slots: asyncio.Semaphore) -> Entry:
        """Ask until there is an answer, or no more hope of one; return it when it is on disk."""
        async with slots:
            for attempt in range(1, self.max_attempts + 1):
                most = self.most(call)
                await self.gate.admit(most)
                if self._closed:
                    raise asyncio.CancelledError
                self._under_way += 1
                try:
                    return await self._attempt(call, most, attempt)
                except TransientError as error:
                    self.faults[error.fault] += 1
                    problem = error
                finally:
                    self._under_way -= 1
                await self._back_off(attempt, problem)
        raise AssertionError("the last attempt returns or raises")

    async def _attempt(self, call: Call, most: Cost, attempt: int) -> Entry:
        """Ask once. Raises TransientError where another attempt is worth it and allowed, and HaltError."""
        started = time.monotonic()
        try:
            reply = await self._sent(call)
        except TransientError as error:
            if attempt < self.max_attempts:
                await self.gate.settle(most, Cost())
                raise
            self.faults[error.fault] += 1
            reply = Reply(str(error), "error")
        except RequestError as error:
            reply = Reply(str(error), error.finish_reason)
        except HaltError as error:
            await self.gate.halt(error)
            raise
        return await self._kept(call, reply, most, started, attempt)

    async def _sent(self, call: Call) -> Reply:
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self.backend.ask(call)
        except TimeoutError:
            raise TransientError(f"no answer in {self.timeout_s:g} s", "timeout") from None

    async def _kept(self, call: Call, reply: Reply, most: Cost, started: float, attempts: int) -> Entry:
        latency_s = time.monotonic() - started
        usd = self.usd(reply.usage)
        entry = entry_of(call, self.request_hash(call), reply, usd, latency_s, attempts, time.time())
        await self.journal.write(entry)
        await self.gate.settle(most, Cost(reply.usage.prompt + reply.usage.output, usd or 0.0))
        if reply.pause_s:
            await self.gate.pause(reply.pause_s)
        return entry

    async def _back_off(self, attempt: int, error: TransientError) -> None:
        longest = min(_FIRST_BACKOFF_S * 2 ** (attempt - 1), _LONGEST_BACKOFF_S)
        wait_s = max(error.retry_after_s or 0.0, random.uniform(0, longest))
        if error.fault == "rate_limited":
            await self.gate.pause(error.retry_after_s or longest)
        await asyncio.sleep(wait_s)


def _groups(calls: Iterable[Call], lead_first: bool) -> Iterator[list[Call]]:
    """Cut calls into groups of which the first goes alone."""
    if not lead_first:
        return ([call] for call in calls)
    return (list(group) for _, group in groupby(calls, key=lambda call: (call.system, call.context)))
