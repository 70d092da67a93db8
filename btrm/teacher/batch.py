"""Asking in batches: calls are sent together, answered within hours at half the price, and then journaled like others.

What is on disk (`batch_files`) says which rows are in which batch. Whoever owes a row that is in a batch waits for that
batch, whoever has sent it, and journals of its results what answers its own rows: reading results costs nothing. So no
batch has an owner, a rerun with other shards finds every running batch again, and collecting may be killed anywhere.
Of several batches that have held a row the latest attempt counts.

A batch that was perhaps created (its sender died, or got no answer) is looked for, by its name or by its results,
before its calls are sent again. One that is not found with this key, at this address, may be another's: nobody pays
twice for it, and asking ends with its name. A batch is one request at the gate, and the most that its calls can cost is
held there until they are journaled, whoever does that. Where the budget ends, what was sent is waited for: it is paid
for.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial
from itertools import count
from typing import Any, cast

from btrm.leases import check_held
from btrm.runs import StageRun
from btrm.teacher.base import Call, Fault, HaltError, Reply, RequestError, RowKey, TransientError
from btrm.teacher.batch_api import GONE, BatchApi
from btrm.teacher.batch_desk import LOOKS, Desk, Sent, reply_of
from btrm.teacher.batch_files import Asked, Batch, BatchFiles
from btrm.teacher.config import TeacherConfig
from btrm.teacher.drive import Asker
from btrm.teacher.gate import Cost, Turn
from btrm.teacher.journal import Entry, forgotten
from btrm.teacher.keys import account

_LOG = logging.getLogger(__name__)
_DRAIN_S = 20.0
_KEPT_S = 29 * 86_400.0  # the APIs keep batches for so long, at least
# The API has said so, or heard nothing: there is nothing to look for.
_NOT_TAKEN: frozenset[Fault] = frozenset({"rate_limited", "overloaded", "unreachable"})
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
    answers = BatchAsker(asker, api, files, make_calls, config.poll_s, times, partial(account, config)).run(missing)
    try:
        async for entries in answers:
            yield entries
    finally:
        await answers.aclose()
        await api.close()


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
        account: Callable[[str], str],
    ) -> None:
        """`forgotten` are the rows whose answers do not count any more, with their times: nor do batches before.

        `account` makes the digest of where, and with which key, a batch of a name is sent.
        """
        self._asker = asker
        self._api = api
        self._files = files
        self._make_calls = make_calls
        self._poll_s = poll_s
        self._forgotten = forgotten
        self._account = account
        self._order: dict[RowKey, int] = {}
        self._desk = Desk(asker, api, poll_s, ())
        self._tried: dict[RowKey, int] = {}  # the latest attempt that a row was in
        self._tasks: set[asyncio.Task[None]] = set()
        self._creating = 0

    async def run(self, missing: Collection[RowKey], wake_s: float = 1.0) -> AsyncGenerator[list[Entry]]:
        """Yield the entries that have come, at least every `wake_s` seconds (then mostly none).

        `missing` are the rows that are owed, in the order in which calls are made. Raises HaltError where nobody may go
        on. Closing it loses nothing: batches go on without us.
        """
        self._order = {key: place for place, key in enumerate(missing)}
        self._desk = Desk(self._asker, self._api, self._poll_s, missing)
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
                some, self._desk.ready = self._desk.ready, []
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
                for key in self._desk.owed.intersection(asked.keys):
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
            await self._follow(Sent(batch, batch_id, Turn(Cost())), keys)

    async def _found(self, batch: Batch) -> str | None:
        """Return the id of a batch that was perhaps created; several looks, since a list may lag behind."""
        looks = 0
        while (fate := self._files.fate(batch)) is None and looks < LOOKS:
            if not self._files.sender_lives(batch):
                try:
                    batch_id = await self._desk.timed(self._api.find(batch, self._files.known()))
                except TransientError as error:
                    _LOG.info("batch %s: %s", batch.name, error)
                else:
                    if batch_id is not None:
                        return self._files.settle(batch, batch_id)
                    looks += 1
            await self._desk.pause()
        if fate is None and self._is_anothers(batch):
            self._refuse_twice(batch, f"{batch.name}, which was perhaps created,")
        return fate.id if fate else self._files.settle(batch, None)

    def _is_anothers(self, batch: Batch) -> bool:
        return batch.account not in {"", self._account(batch.name)}

    def _refuse_twice(self, batch: Batch, name: str) -> None:
        """Raise HaltError for a batch that is not there, unless it is so old that the API has forgotten it."""
        if time.time() - batch.at > _KEPT_S:
            return
        why = "it was sent with another key or base_url." if self._is_anothers(batch) else "was it deleted?"
        date = f"{datetime.fromtimestamp(batch.at):%Y-%m-%d %H:%M}"
        raise HaltError(
            f"the API knows no batch {name} of {date}: {why} A batch is seen "
            "with a key of its own workspace, at its own base_url; ask with those. Its calls would be paid for twice: "
            f"only to send them again, remove {self._files.directory / batch.name}.*",
            "batch",
        )

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
        batch = self._files.intend(
            [self._asked(call) for call in calls], self._asker.journal.path.name, turn.most.usd, self._account
        )
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
        self._start(self._follow(Sent(batch, batch_id, turn), [key for call in calls for key in call.keys]))
        return None

    def _asked(self, call: Call) -> Asked:
        attempt = 1 + max(self._tried.get(key, 0) for key in call.keys)
        return Asked.of(call, self._asker.request_hash(call), attempt)

    async def _create(self, batch: Batch, calls: list[Call]) -> str:
        """Create a batch, however often that takes. Raises RequestError and HaltError, and then there is none."""
        for tries in count(1):
            self._creating += 1
            try:
                created = await self._desk.timed(self._api.create(batch.name, calls))
                return self._files.settle(batch, created) or created  # or: taken for lost by another share meanwhile
            except TransientError as error:
                problem = error
            finally:
                self._creating -= 1
            _LOG.warning("batch %s: not created: %s", batch.name, problem)
            if problem.retry_after_s:
                await self._asker.gate.pause(problem.retry_after_s)
            await asyncio.sleep(problem.retry_after_s or self._desk.jittered(min(2.0**tries, self._poll_s)))
            if problem.fault not in _NOT_TAKEN and (found := await self._found(batch)):
                return found
        raise AssertionError("it is tried until it is created or refused")

    async def _refused(self, batch: Batch, calls: list[Call], error: RequestError) -> None:
        if len(calls) > 1:
            for half in (calls[: len(calls) // 2], calls[len(calls) // 2 :]):
                await self._submit(half)
        else:
            await self._desk.keep(Sent(batch, "", Turn(Cost())), [(0, reply_of(error))])

    async def _follow(self, sent: Sent, keys: Collection[RowKey]) -> None:
        """Wait for a batch, journal its answers, and send again what has none."""
        if await self._desk.ended(sent.id) == GONE:
            self._refuse_twice(sent.batch, sent.id)
        places = {place for place, asked in enumerate(sent.batch.asked) if not set(keys).isdisjoint(asked.keys)}
        failed = await self._desk.collect(sent, places)
        hopeless = {place for place in failed if sent.batch.asked[place].attempt >= self._asker.max_attempts}
        await self._desk.keep(sent, [(place, Reply(str(failed[place]), "error")) for place in hopeless])
        await self._desk.settle(sent)
        asked_again = [sent.batch.asked[place] for place in failed.keys() - hopeless]
        if again := [key for asked in asked_again for key in asked.keys if key in self._desk.owed]:
            _LOG.warning("batch %s: %d rows are sent again", sent.id, len(again))
            await self._send(again)
