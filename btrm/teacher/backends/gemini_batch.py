"""Gemini's batch mode, by Google's own SDK, with the requests inline."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection
from typing import Any

from btrm.runs import StageRun
from btrm.teacher.backends.gemini import GeminiBackend, reply_of, settings
from btrm.teacher.backends.http_errors import Problem, error_of
from btrm.teacher.base import Call, Reply, RequestError, TransientError
from btrm.teacher.batch_api import GONE, Look, Result
from btrm.teacher.batch_files import Batch
from btrm.teacher.config import TeacherConfig

_FRAME = 256  # bytes of a request around its text and settings
_RUNNING = {"JOB_STATE_UNSPECIFIED", "JOB_STATE_QUEUED", "JOB_STATE_PENDING", "JOB_STATE_RUNNING"}
_STOPPING = {"JOB_STATE_CANCELLING", "JOB_STATE_PAUSED", "JOB_STATE_UPDATING"}
_OWN = {3, 400}  # INVALID_ARGUMENT, as a code of RPC and of HTTP


class GeminiBatches(GeminiBackend):
    """The API's batches. A batch's display name is its name; each request's metadata names its place.

    Requests inline may take 20 MB together, by the API's own guide; beyond that there are more batches.
    """

    most_calls = 50_000
    most_bytes = 18_000_000

    def bytes_of(self, call: Call) -> int:
        """Return what a call adds to a batch's size."""
        return len(json.dumps(self._fields(call), ensure_ascii=False, default=str).encode()) + _FRAME

    def _fields(self, call: Call) -> dict[str, Any]:
        return {"contents": call.context + call.question, "config": settings(self._config, call)}

    async def create(self, name: str, calls: list[Call]) -> str:
        """Create a batch and return its id."""
        requests = [{**self._fields(call), "metadata": {"key": str(n)}} for n, call in enumerate(calls)]
        batches = self._client.aio.batches
        with self._wire.errors():
            made = await batches.create(model=self._config.model, src=requests, config={"display_name": name})
            return str(made.name)

    async def find(self, batch: Batch, known: Collection[str]) -> str | None:
        """Look for a batch by its display name."""
        del known
        with self._wire.errors():
            async for listed in await self._client.aio.batches.list(config={"page_size": 50}):
                if listed.display_name == batch.name:
                    return str(listed.name)
        return None

    async def look(self, batch_id: str) -> Look:
        """Say how far a batch is."""
        job = await self._job(batch_id)
        if job is None:
            return GONE
        state = job.state.name if job.state is not None else "JOB_STATE_UNSPECIFIED"
        return Look(state not in _RUNNING | _STOPPING, state.removeprefix("JOB_STATE_").lower())

    async def results(self, name: str, batch_id: str) -> AsyncIterator[Result]:
        """Yield the results of a batch that has ended: in the requests' order, should they not say their places."""
        del name
        job = await self._job(batch_id)
        responses = (job.dest.inlined_responses if job is not None and job.dest is not None else None) or []
        for number, response in enumerate(responses):
            place = int((response.metadata or {}).get("key", number))
            if (outcome := _outcome(response)) is not None:
                yield place, outcome

    async def _job(self, batch_id: str) -> Any:
        """Return a batch, None for one that is gone."""
        from google.genai.errors import ClientError

        with self._wire.errors():
            try:
                return await self._client.aio.batches.get(name=batch_id)
            except ClientError as error:
                if error.code == 404:
                    return None
                raise


def _outcome(response: Any) -> Reply | TransientError | RequestError | None:
    """Return what became of a request; None where nothing is said."""
    if response.error is not None:
        code, message = response.error.code or 0, response.error.message or "no message"
        error = error_of(Problem(400 if code in _OWN else 500, message))
        return error if isinstance(error, RequestError) else TransientError(f"{code} {message}", "server_error")
    if response.response is None:
        return None
    try:
        return reply_of(response.response.model_dump(mode="json", by_alias=True, exclude_none=True))
    except TransientError as error:
        return error


def open_batches(config: TeacherConfig, run: StageRun) -> GeminiBatches:
    """Return the API's batches. Raises ConfigError where its key is missing."""
    del run
    return GeminiBatches(config)
