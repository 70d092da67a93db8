"""Waiting for batches and taking what they answer: into the journal, and from there to whoever asked."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from btrm.teacher.base import Reply, RequestError, RowKey, TransientError, Usage
from btrm.teacher.batch_api import BatchApi, Look, Result
from btrm.teacher.batch_files import Asked, Batch
from btrm.teacher.drive import Asker
from btrm.teacher.gate import Cost, Turn
from btrm.teacher.journal import Entry

_LOG = logging.getLogger(__name__)
LOOKS = 3  # at a list of batches, or at results that lack some, before what is not there is taken for lost
_TOGETHER = 256  # results journaled by one flush
T = TypeVar("T")


@dataclass(slots=True)
class Sent:
    """A batch that there is, what is held for it, and the dollars that its journaled answers have cost."""

    batch: Batch
    id: str
    turn: Turn
    usd: float = 0.0


class Desk:
    """Where a share's batches are waited for. `owed` are the rows without an answer, `ready` the newest answers."""

    def __init__(self, asker: Asker, api: BatchApi, poll_s: float, missing: Collection[RowKey]) -> None:
        self._asker = asker
        self._api = api
        self._poll_s = poll_s
        self._labels = {label for label, _, _ in missing}
        self.owed = set(missing)
        self.ready: list[Entry] = []

    async def ended(self, batch_id: str) -> Look:
        """Return the last look at a batch, once it has ended; whatever may pass is waited for."""
        before = ""
        while True:
            try:
                look = await self.timed(self._api.look(batch_id))
            except TransientError as error:
                _LOG.warning("batch %s: %s", batch_id, error)
                await self.pause(error.retry_after_s)
                continue
            if look.progress != before:
                before = look.progress
                _LOG.info("batch %s: %s", batch_id, before)
            if look.ended:
                return look
            await self._asker.gate.settle(Turn(Cost()), Cost())  # what this share holds is no dead one's
            await self.pause()

    async def collect(self, sent: Sent, left: set[int]) -> dict[int, TransientError]:
        """Journal the answers of the calls at these places; return why others have none."""
        failed: dict[int, TransientError] = {}
        looks = 0
        while left and looks < LOOKS:
            if looks:
                await self.pause()
            try:
                async for results in _together(self._api.results(sent.batch.name, sent.id)):
                    mine = {place: outcome for place, outcome in results if place in left}
                    failed |= {place: error for place, error in mine.items() if isinstance(error, TransientError)}
                    await self.keep(
                        sent, [(p, reply_of(o)) for p, o in mine.items() if not isinstance(o, TransientError)]
                    )
                    left -= mine.keys()
                looks += 1
            except TransientError as error:
                _LOG.warning("batch %s: its results: %s", sent.id, error)
                await self.pause(error.retry_after_s)
        return failed | {place: TransientError("the batch ended without a result", "garbled") for place in left}

    async def keep(self, sent: Sent, replies: Collection[tuple[int, Reply]]) -> None:
        """Journal answers and hand them out."""
        entries = [self._entry(sent.batch, sent.batch.asked[place], reply) for place, reply in replies]
        await asyncio.gather(*(self._asker.journal.write(entry) for entry in entries))
        self.owed.difference_update(key for entry in entries for key in entry.keys)
        self.ready += entries
        sent.usd += sum(entry.usd or 0.0 for entry in entries)

    async def settle(self, sent: Sent) -> None:
        """Tell the gate what a batch has cost; let go of what an earlier attempt held for it."""
        await self._asker.gate.settle(sent.turn, Cost(usd=sent.usd))
        if self._is_paid_here(sent.batch.asked[0]):
            self._asker.gate.release(sent.batch.holder, sent.batch.most_usd)

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

    async def timed(self, answer: Coroutine[Any, Any, T]) -> T:
        """Return what the API answers. Raises TransientError where that takes longer than a call may."""
        try:
            async with asyncio.timeout(self._asker.timeout_s):
                return await answer
        except TimeoutError:
            raise TransientError(f"no answer in {self._asker.timeout_s:g} s", "timeout") from None

    async def pause(self, at_least_s: float | None = None) -> None:
        """Wait until the next look."""
        await asyncio.sleep(max(self.jittered(self._poll_s), at_least_s or 0.0))

    def jittered(self, seconds: float) -> float:
        """Many shards look at the same API: not all at once."""
        return seconds * random.uniform(0.8, 1.2)


def reply_of(outcome: Reply | RequestError) -> Reply:
    """Return what is journaled of a request that ended so."""
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
