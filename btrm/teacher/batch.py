"""Asking in batches: calls are sent together, answered within hours at half the price, and then journaled like others.

What is on disk (`batch_files`) says which rows are in which batch. Whoever owes a row that is in a batch waits for that
batch, whoever has sent it, and journals of its results what answers its own rows: reading results costs nothing. So no
batch has an owner, a rerun with other shards finds every running batch again, and collecting may be killed anywhere.
Of several batches that have held a row the latest attempt counts.

A batch that was perhaps created (its sender died, or got no answer) is looked for, by its name or by its results,
before its calls are sent again. A batch is one request at the gate, and the most that its calls can cost is held there
until they are journaled, whoever does that. Where the budget ends, what was sent is waited for: it is paid for.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Protocol, TypeVar, cast

from btrm.leases import check_held
from btrm.runs import StageRun
from btrm.teacher.base import Call, Fault, HaltError, Reply, RequestError, RowKey, TransientError, Usage
from btrm.teacher.batch_files import Asked, Batch, BatchFiles
from btrm.teacher.config import TeacherConfig
from btrm.teacher.drive import Asker
from btrm.teacher.gate import Cost, Turn
from btrm.teacher.journal import Entry, forgotten

_LOG = logging.getLogger(__name__)
_DRAIN_S = 20.0
_LOOKS = 3  # at a list of batches, or at results that lack some, before what is not there is taken for lost
_TOGETHER = 256  # results journaled by one flush
_NOT_TAKEN: frozenset[Fault] = frozenset({"rate_limited", "overloaded"})  # the API has said so: nothing to look for
T = TypeVar("T")
MakeCalls = Callable[[Collection[RowKey]], Iterable[Call]]


async def ask_in_batches(
    config: TeacherConfig,
    run: StageRun,
    asker: Asker,
    files: BatchFiles,
    make_calls: MakeCalls,
    missing: Collection[RowKey],
) -> AsyncGenerator[list[Entry]]:
    """Yield the entries that answer the missing rows, as `Asker.run` does, by way of the API's batch mode."""
    api = importlib.import_module(f"btrm.teacher.backends.{config.backend}_batch").open_batches(config, run)
    times: dict[RowKey, float] = {}
    for _, at, *key in sorted(forgotten(asker.journal.path.parent), key=lambda answer: answer[1]):
        times[cast("RowKey", tuple(key))] = at
    answers = BatchAsker(asker, api, files, make_calls, config.poll_s, times).run(missing)
    try:
        async for entries in answers:
            yield entries
    finally:
        await answers.aclose()
        await api.close()


@dataclass(frozen=True, slots=True)
class Look:
    """How far a batch is; `progress` is for people."""

    ended: bool
    progress: str


Result = tuple[int, Reply | TransientError | RequestError]  # a call's place in its batch, and what became of it


class BatchApi(Protocol):
    """An API's batches. Everything raises TransientError, RequestError or HaltError and never tries again by itself."""

    most_calls: int
    most_bytes: int

    def bytes_of(self, call: Call) -> int:
        """Return what a call adds to a batch's size."""
        ...

    async def create(self, name: str, calls: list[Call]) -> str:
        """Create a batch and return its id; `name` and a call's place in it must be seen in its results."""
        ...

    async def find(self, batch: Batch, known: Collection[str]) -> str | None:
        """Return the id of a batch that was perhaps created, None where there is none.

        `known` are other batches' ids. Raises TransientError too while it cannot be told.
        """
        ...

    async def look(self, batch_id: str) -> Look:
        """Say how far a batch is; one that is gone has ended."""
        ...

    def results(self, name: str, batch_id: str) -> AsyncIterator[Result]:
        """Yield the results of a batch that has ended, in any order; what has none is passed over."""
        ...

    async def close(self) -> None:
        """Give connections back."""
        ...


@dataclass(slots=True)
class _Sent:
    """A batch that there is, what is held for it, and the dollars that its journaled answers have cost."""

    batch: Batch
    id: str
    turn: Turn
    usd: float = 0.0


class BatchAsker:
    """Sends what is missing in batches, waits for them, and journals what comes."""

    def __init__(
        self,
        asker: Asker,
        api: BatchApi,
        files: BatchFiles,
        make_calls: MakeCalls,
        poll_s: float,
        forgotten: Mapping[RowKey, float],
    ) -> None:
        """`forgotten` are the rows whose answers do not count any more, with their times: nor do batches before."""
        self._asker = asker
        self._api = api
        self._files = files
        self._make_calls = make_calls
        self._poll_s = poll_s
        self._forgotten = forgotten
        self._order: dict[RowKey, int] = {}
        self._labels: set[str] = set()
        self._owed: set[RowKey] = set()
        self._tried: dict[RowKey, int] = {}  # the latest attempt that a row was in
        self._ready: list[Entry] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._creating = 0

    async def run(self, missing: Collection[RowKey], wake_s: float = 1.0) -> AsyncGenerator[list[Entry]]:
        """Yield the entries that have come, at least every `wake_s` seconds (then mostly none).

        `missing` are the rows that are owed, in the order in which calls are made. Raises HaltError where nobody may go
        on. Closing it loses nothing: batches go on without us.
        """
        self._order = {key: place for place, key in enumerate(missing)}
        self._labels = {label for label, _, _ in missing}
        self._owed = set(missing)
        for batch, keys in self._under_way():
            self._start(self._resume(batch, keys))
        if rest := [key for key in missing if key not in self._tried]:
            self._start(self._send(rest))
        if self._tasks:
            _LOG.info(
                "batches are answered within 24 hours, mostly within one; this job keeps its CPUs while it waits. "
                "Stopped, nothing is lost: a rerun goes on waiting"
            )
        halted: HaltError | None = None
        try:
            while self._tasks:
                done, _ = await asyncio.wait(self._tasks, timeout=wake_s, return_when=asyncio.FIRST_COMPLETED)
                self._tasks -= done
                some, self._ready = self._ready, []
                yield some
                halted = self._checked(done) or halted
            if halted is not None:
                raise halted
        except HaltError as error:
            await self._asker.gate.halt(error)
            raise
        finally:
            await self._drain()

    def _checked(self, done: Collection[asyncio.Task[None]]) -> HaltError | None:
        """Raise what ends the asking; return the word that nothing more may be sent, for want of money."""
        halted: HaltError | None = None
        check_held()
        for look in (self._asker.gate.check, *(task.result for task in done)):
            try:
                look()
            except HaltError as error:
                if error.cause != "budget":
                    raise
                halted = error
        return halted

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.add(asyncio.create_task(work))

    async def _drain(self) -> None:
        """Wait a while for the ids of batches that are just being created; a rerun would have to look for them."""
        deadline = time.monotonic() + _DRAIN_S
        while self._creating and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _under_way(self) -> list[tuple[Batch, list[RowKey]]]:
        """Return the batches that hold owed rows, each with the rows whose latest attempt it is."""
        latest: dict[RowKey, tuple[int, float, Batch]] = {}
        for batch in self._files.batches():
            fate = self._files.fate(batch)
            if fate is not None and fate.id is None:
                continue
            for asked in batch.asked:
                for key in self._owed.intersection(asked.keys):
                    if batch.at < self._forgotten.get(key, 0.0):
                        continue
                    if key not in latest or latest[key][:2] < (asked.attempt, batch.at):
                        latest[key] = (asked.attempt, batch.at, batch)
        self._tried = {key: attempt for key, (attempt, _, _) in latest.items()}
        found: dict[str, tuple[Batch, list[RowKey]]] = {}
        for key, (_, _, batch) in latest.items():
            found.setdefault(batch.name, (batch, []))[1].append(key)
        return list(found.values())

    async def _resume(self, batch: Batch, keys: Collection[RowKey]) -> None:
        fate = self._files.fate(batch)
        batch_id = fate.id if fate else await self._found(batch)
        if batch_id is None:
            _LOG.warning("batch %s was never created: its %d rows are sent anew", batch.name, len(keys))
            await self._send(keys)
        else:
            _LOG.info("batch %s (%d calls) goes on", batch_id, len(batch.asked))
            await self._follow(_Sent(batch, batch_id, Turn(Cost())), keys)

    async def _found(self, batch: Batch) -> str | None:
        """Return the id of a batch that was perhaps created; several looks, since a list may lag behind."""
        looks = 0
        while (fate := self._files.fate(batch)) is None and looks < _LOOKS:
            if not self._files.sender_lives(batch):
                try:
                    batch_id = await self._timed(self._api.find(batch, self._files.known()))
                except TransientError as error:
                    _LOG.info("batch %s: %s", batch.name, error)
                else:
                    if batch_id is not None:
                        return self._files.settle(batch, batch_id)
                    looks += 1
            await self._pause()
        return fate.id if fate else self._files.settle(batch, None)

    async def _send(self, keys: Collection[RowKey]) -> None:
        for calls in self._cut(self._make_calls(sorted(keys, key=self._order.__getitem__))):
            await self._submit(calls)

    def _cut(self, calls: Iterable[Call]) -> Iterator[list[Call]]:
        """Cut calls into batches below the API's limits."""
        some: list[Call] = []
        size = 0
        for call in calls:
            more = self._api.bytes_of(call)
            if some and (len(some) == self._api.most_calls or size + more > self._api.most_bytes):
                yield some
                some, size = [], 0
            some.append(call)
            size += more
        if some:
            yield some

    async def _submit(self, calls: list[Call]) -> None:
        """Send calls as one batch; one that the API refuses in halves, until the call that it refuses is alone."""
        turn = await self._asker.gate.admit(Cost(usd=sum(self._asker.most(call).usd for call in calls)))
        batch = self._files.intend([self._asked(call) for call in calls], self._asker.journal.path.name, turn.most.usd)
        try:
            batch_id = await self._create(batch, calls)
        except (RequestError, HaltError) as error:
            self._files.settle(batch, None)
            await self._asker.gate.settle(turn, Cost())
            if isinstance(error, HaltError):
                raise
            return await self._refused(batch, calls, error)
        self._tried |= {key: asked.attempt for asked in batch.asked for key in asked.keys}
        _LOG.info("batch %s: %d calls sent", batch_id, len(calls))
        self._start(self._follow(_Sent(batch, batch_id, turn), [key for call in calls for key in call.keys]))
        return None

    def _asked(self, call: Call) -> Asked:
        attempt = 1 + max(self._tried.get(key, 0) for key in call.keys)
        return Asked.of(call, self._asker.request_hash(call), attempt)

    async def _create(self, batch: Batch, calls: list[Call]) -> str:
        """Create a batch, however often that takes. Raises RequestError and HaltError, and then there is none."""
        for tries in count(1):
            self._creating += 1
            try:
                created = await self._timed(self._api.create(batch.name, calls))
                return self._files.settle(batch, created) or created  # or: taken for lost by another share meanwhile
            except TransientError as error:
                problem = error
            finally:
                self._creating -= 1
            _LOG.warning("batch %s: not created: %s", batch.name, problem)
            if problem.retry_after_s:
                await self._asker.gate.pause(problem.retry_after_s)
            await asyncio.sleep(problem.retry_after_s or self._jittered(min(2.0**tries, self._poll_s)))
            if problem.fault not in _NOT_TAKEN and (found := await self._found(batch)):
                return found
        raise AssertionError("it is tried until it is created or refused")

    async def _refused(self, batch: Batch, calls: list[Call], error: RequestError) -> None:
        if len(calls) > 1:
            for half in (calls[: len(calls) // 2], calls[len(calls) // 2 :]):
                await self._submit(half)
        else:
            await self._keep(_Sent(batch, "", Turn(Cost())), [(0, _reply(error))])

    async def _follow(self, sent: _Sent, keys: Collection[RowKey]) -> None:
        """Wait for a batch, journal its answers, and send again what has none."""
        await self._ended(sent.id)
        places = {place for place, asked in enumerate(sent.batch.asked) if not set(keys).isdisjoint(asked.keys)}
        failed = await self._collect(sent, places)
        hopeless = {place for place in failed if sent.batch.asked[place].attempt >= self._asker.max_attempts}
        await self._keep(sent, [(place, Reply(str(failed[place]), "error")) for place in hopeless])
        await self._settle(sent)
        asked_again = [sent.batch.asked[place] for place in failed.keys() - hopeless]
        if again := [key for asked in asked_again for key in asked.keys if key in self._owed]:
            _LOG.warning("batch %s: %d rows are sent again", sent.id, len(again))
            await self._send(again)

    async def _settle(self, sent: _Sent) -> None:
        """Tell the gate what a batch has cost; let go of what an earlier attempt held for it."""
        await self._asker.gate.settle(sent.turn, Cost(usd=sent.usd))
        if self._is_paid_here(sent.batch.asked[0]):
            self._asker.gate.release(sent.batch.holder, sent.batch.most_usd)

    async def _ended(self, batch_id: str) -> None:
        """Return once a batch has ended; whatever may pass is waited for."""
        before = ""
        while True:
            try:
                look = await self._timed(self._api.look(batch_id))
            except TransientError as error:
                _LOG.warning("batch %s: %s", batch_id, error)
                await self._pause(error.retry_after_s)
                continue
            if look.progress != before:
                before = look.progress
                _LOG.info("batch %s: %s", batch_id, before)
            if look.ended:
                return
            await self._asker.gate.settle(Turn(Cost()), Cost())  # what this share holds is no dead one's
            await self._pause()

    async def _collect(self, sent: _Sent, left: set[int]) -> dict[int, TransientError]:
        """Journal the answers of the calls at these places; return why others have none."""
        failed: dict[int, TransientError] = {}
        looks = 0
        while left and looks < _LOOKS:
            if looks:
                await self._pause()
            try:
                async for results in _together(self._api.results(sent.batch.name, sent.id)):
                    mine = {place: outcome for place, outcome in results if place in left}
                    failed |= {place: error for place, error in mine.items() if isinstance(error, TransientError)}
                    await self._keep(
                        sent, [(p, _reply(o)) for p, o in mine.items() if not isinstance(o, TransientError)]
                    )
                    left -= mine.keys()
                looks += 1
            except TransientError as error:
                _LOG.warning("batch %s: its results: %s", sent.id, error)
                await self._pause(error.retry_after_s)
        return failed | {place: TransientError("the batch ended without a result", "garbled") for place in left}

    async def _keep(self, sent: _Sent, replies: Collection[tuple[int, Reply]]) -> None:
        """Journal answers and hand them out."""
        entries = [self._entry(sent.batch, sent.batch.asked[place], reply) for place, reply in replies]
        await asyncio.gather(*(self._asker.journal.write(entry) for entry in entries))
        self._owed.difference_update(key for entry in entries for key in entry.keys)
        self._ready += entries
        sent.usd += sum(entry.usd or 0.0 for entry in entries)

    def _entry(self, batch: Batch, asked: Asked, reply: Reply) -> Entry:
        """Return a journal's line. A call whose pairs now lie in two shares is in both's journals, paid in one's."""
        usage = reply.usage if self._is_paid_here(asked) else Usage()
        now = time.time()
        return Entry(
            items=asked.items,
            sample=asked.sample,
            layout=asked.layout,
            form=asked.form,
            request_hash=asked.request_hash,
            text=reply.text,
            finish_reason=reply.finish_reason,
            usage=usage,
            usd=self._asker.usd(usage),
            latency_s=round(max(now - batch.at, 0.0), 4),
            attempts=asked.attempt,
            at=round(now, 3),
            raw=dict(reply.raw),
        )

    def _is_paid_here(self, asked: Asked) -> bool:
        return asked.items[0].label_id in self._labels

    async def _timed(self, answer: Coroutine[Any, Any, T]) -> T:
        try:
            async with asyncio.timeout(self._asker.timeout_s):
                return await answer
        except TimeoutError:
            raise TransientError(f"no answer in {self._asker.timeout_s:g} s", "timeout") from None

    async def _pause(self, at_least_s: float | None = None) -> None:
        await asyncio.sleep(max(self._jittered(self._poll_s), at_least_s or 0.0))

    def _jittered(self, seconds: float) -> float:
        """Many shards look at the same API: not all at once."""
        return seconds * random.uniform(0.8, 1.2)


def _reply(outcome: Reply | RequestError) -> Reply:
    return outcome if isinstance(outcome, Reply) else Reply(str(outcome), outcome.finish_reason)


async def _together(results: AsyncIterator[Result]) -> AsyncGenerator[list[Result]]:
    """Yield results some at a time; what came before an error is yielded before it is raised."""
    some: list[Result] = []
    problem: TransientError | None = None
    try:
        async for result in results:
            some.append(result)
            if len(some) == _TOGETHER:
                yield some
                some = []
    except TransientError as error:
        problem = error
    yield some
    if problem is not None:
        raise problem
