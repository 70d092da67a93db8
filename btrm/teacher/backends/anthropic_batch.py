"""Anthropic's Message Batches, by its own SDK."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection
from typing import Any

from btrm.runs import StageRun
from btrm.teacher.backends.anthropic import AnthropicBackend, reply_of, request
from btrm.teacher.backends.http_errors import Problem, error_of
from btrm.teacher.base import Call, Reply, RequestError, TransientError
from btrm.teacher.batch_api import GONE, Look, Result
from btrm.teacher.batch_files import Batch
from btrm.teacher.config import TeacherConfig

_FRAME = 128  # bytes of a request around its fields
_CLOCKS_S = 3600.0  # by which this machine's clock may be ahead of the API's
_OWN = {"invalid_request_error": 400, "request_too_large": 413}  # the other errors are not the request's fault


class AnthropicBatches(AnthropicBackend):
    """The API's batches. A request's custom_id is the batch's name and the call's place in it.

    Sources: the limits (100,000 requests or 256 MB), and results without order, are those of the API's own guide.
    """

    most_calls = 100_000
    most_bytes = 250_000_000

    def bytes_of(self, call: Call) -> int:
        """Return what a call adds to a batch's size."""
        return len(json.dumps(self._fields(call), ensure_ascii=False).encode()) + _FRAME

    def _fields(self, call: Call) -> dict[str, Any]:
        return request(self._config, call)

    async def create(self, name: str, calls: list[Call]) -> str:
        """Create a batch and return its id."""
        requests = [{"custom_id": f"{name}-{n}", "params": self._fields(call)} for n, call in enumerate(calls)]
        with self._wire.errors():
            return (await self._client.messages.batches.create(requests=requests)).id

    async def find(self, batch: Batch, known: Collection[str]) -> str | None:
        """Look among the newer batches of as many requests for the one whose results name this one.

        A batch has no name of its own: while one that may be it is not ended, this raises TransientError.
        """
        waiting = ""
        with self._wire.errors():
            async for listed in self._client.messages.batches.list(limit=100):
                if listed.created_at.timestamp() < batch.at - _CLOCKS_S:
                    break
                if listed.id in known or sum(listed.request_counts.to_dict().values()) != len(batch.asked):
                    continue
                if listed.processing_status != "ended":
                    waiting = listed.id
                elif await self._holds(listed.id, batch.name):
                    return listed.id
        if waiting:
            raise TransientError(f"perhaps it is {waiting}, which tells when it ends", "timeout")
        return None

    async def _holds(self, batch_id: str, name: str) -> bool:
        async for custom_id, _ in self._lines(batch_id):
            return custom_id.startswith(f"{name}-")
        return False

    async def look(self, batch_id: str) -> Look:
        """Say how far a batch is."""
        from anthropic import NotFoundError

        with self._wire.errors():
            try:
                batch = await self._client.messages.batches.retrieve(batch_id)
            except NotFoundError:
                return GONE
        counts = ", ".join(f"{count} {what}" for what, count in batch.request_counts.to_dict().items() if count)
        return Look(batch.processing_status == "ended", counts or batch.processing_status)

    async def results(self, name: str, batch_id: str) -> AsyncIterator[Result]:
        """Yield the results of a batch that has ended."""
        async for custom_id, result in self._lines(batch_id):
            owner, _, place = custom_id.rpartition("-")
            if owner == name:
                yield int(place), _outcome(result)

    async def _lines(self, batch_id: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Stream the results; none of a batch that is gone, or whose results are (the API keeps them for 29 days)."""
        from anthropic import AnthropicError, APIError, NotFoundError

        with self._wire.errors():
            try:
                lines = await self._client.messages.batches.results(batch_id)
            except NotFoundError:
                return
            except AnthropicError as error:
                if isinstance(error, APIError):
                    raise
                return  # the SDK's own: there is no address of results
            async for line in lines:
                yield line.custom_id, line.result.to_dict()


def _outcome(result: dict[str, Any]) -> Reply | TransientError | RequestError:
    """Return what became of a request."""
    match result["type"]:
        case "succeeded":
            try:
                return reply_of(result["message"], {})
            except TransientError as error:
                return error
        case "errored":
            told = result["error"].get("error") or {}
            kind, message = str(told.get("type")), str(told.get("message"))
            error = error_of(Problem(_OWN.get(kind, 500), message, frozenset({kind})))
            return error if isinstance(error, RequestError) else TransientError(f"{kind}: {message}", "server_error")
        case what:
            return TransientError(f"the request was {what}", "timeout")


def open_batches(config: TeacherConfig, run: StageRun) -> AnthropicBatches:
    """Return the API's batches. Raises ConfigError where its key is missing."""
    del run
    return AnthropicBatches(config)
