"""Anthropic's Message Batches and Gemini's batch mode, as the test server speaks them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web
from api_world import Answer, Asked, Json, World, retry_headers

Respond = Callable[[World, Asked], Answer]


@dataclass
class Made:
    """A batch. `looks` are how many more times it is seen processing; `results` are there once it has ended."""

    id: str
    requests: list[Json]
    looks: int
    at: datetime
    name: str = ""
    results: list[Json] | None = None

    def look(self) -> bool:
        """Say whether it has ended by now."""
        self.looks -= 1
        return self.looks < 0


@dataclass
class Batches:
    """All batches of a server.

    `fates` are taken one a request, in the order of creation: "ok", "expired", "canceled", "lost" (no result at all),
    an Anthropic error's type, or a code of Gemini's; then all are ok. `states` are Gemini's ends of whole batches.
    `created` is called when a batch has been taken and before anyone is told.
    """

    looks: int = 1
    fates: list[str] = field(default_factory=list[str])
    states: list[str] = field(default_factory=list[str])
    refuse_above: int | None = None
    made: list[Made] = field(default_factory=list[Made])
    created: Callable[[], None] = lambda: None
    seen_results: int = 0

    def make(self, requests: list[Json], name: str = "") -> Made:
        """Take a batch."""
        batch = Made(f"msgbatch_{len(self.made):04d}", requests, self.looks, datetime.now(UTC), name)
        self.made.append(batch)
        self.created()
        return batch

    def named(self, path: str) -> Made | None:
        """Return the batch that an address names."""
        return next((batch for batch in self.made if f"/{batch.id}" in path), None)

    def fate(self) -> str:
        """Return what becomes of the next request."""
        return self.fates.pop(0) if self.fates else "ok"

    def add_routes(self, app: web.Application, world: World) -> None:
        """Add both APIs' addresses."""
        import api_anthropic
        import api_gemini

        anthropic, gemini = AnthropicBatches(self, api_anthropic.messages), GeminiBatches(self, api_gemini.generate)
        app.router.add_post("/v1/messages/batches", world.handler("anthropic", anthropic.create))
        app.router.add_get("/v1/messages/batches", world.handler("anthropic", anthropic.list))
        app.router.add_get("/v1/messages/batches/{id}", world.handler("anthropic", anthropic.retrieve))
        app.router.add_get("/v1/messages/batches/{id}/results", world.handler("anthropic", anthropic.results))
        app.router.add_post("/v1beta/models/{model}:batchGenerateContent", world.handler("gemini", gemini.create))
        app.router.add_get("/v1beta/batches", world.handler("gemini", gemini.list))
        app.router.add_get("/v1beta/batches/{id}", world.handler("gemini", gemini.get))


@dataclass
class AnthropicBatches:
    """Message Batches."""

    batches: Batches
    respond: Respond

    def create(self, world: World, asked: Asked) -> Answer:
        """Answer POST /v1/messages/batches."""
        if refused := _anthropic_fault(world, asked):
            return refused
        requests: list[Json] = asked.body["requests"]
        limit = self.batches.refuse_above
        if limit is not None and len(requests) > limit:
            return _anthropic_error(413, "request_too_large", "Request exceeds the maximum size")
        assert len({request["custom_id"] for request in requests}) == len(requests)
        assert all(0 < len(request["custom_id"]) <= 64 for request in requests)
        return Answer(200, self._shown(self.batches.make(requests), asked))

    def list(self, world: World, asked: Asked) -> Answer:
        """Answer GET /v1/messages/batches: the newest first, two a page."""
        if refused := _anthropic_fault(world, asked):
            return refused
        newest = self.batches.made[::-1]
        after = next((place + 1 for place, batch in enumerate(newest) if f"after_id={batch.id}" in asked.path), 0)
        page = newest[after : after + 2]
        for batch in page:
            self._go_on(world, asked, batch)
        data = [self._shown(batch, asked) for batch in page]
        ends = {"first_id": page[0].id, "last_id": page[-1].id} if page else {"first_id": None, "last_id": None}
        return Answer(200, {"data": data, "has_more": after + 2 < len(newest), **ends})

    def retrieve(self, world: World, asked: Asked) -> Answer:
        """Answer GET /v1/messages/batches/ID."""
        if refused := _anthropic_fault(world, asked):
            return refused
        batch = self.batches.named(asked.path)
        if batch is None:
            return _anthropic_error(404, "not_found_error", "no such batch")
        self._go_on(world, asked, batch)
        return Answer(200, self._shown(batch, asked))

    def _go_on(self, world: World, asked: Asked, batch: Made) -> None:
        if batch.results is None and batch.look():
            batch.results = [
                {"custom_id": request["custom_id"], "result": result}
                for request in batch.requests
                if (result := self._result(world, asked, request["params"], self.batches.fate()))
            ]

    def _result(self, world: World, asked: Asked, params: Json, fate: str) -> Json:
        if fate == "lost":
            return {}
        if fate in {"expired", "canceled"}:
            return {"type": fate}
        if fate != "ok":
            error = {"type": "error", "error": {"type": fate, "message": f"a {fate}"}, "request_id": None}
            return {"type": "errored", "error": error}
        answer = self.respond(world, Asked(asked.headers, "/v1/messages", params))
        assert answer.status == 200, answer.body
        return {"type": "succeeded", "message": answer.body}

    def results(self, world: World, asked: Asked) -> Answer:
        """Answer GET /v1/messages/batches/ID/results: a line a request, in another order."""
        if refused := _anthropic_fault(world, asked):
            return refused
        batch = self.batches.named(asked.path)
        assert batch is not None and batch.results is not None
        self.batches.seen_results += 1
        lines = "".join(json.dumps(result) + "\n" for result in batch.results[::-1])
        return Answer(200, lines, {"content-type": "application/x-jsonl"})

    def _shown(self, batch: Made, asked: Asked) -> Json:
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        for result in batch.results or ():
            counts[result["result"]["type"]] += 1
        counts["processing"] = len(batch.requests) if batch.results is None else 0
        ended = batch.results is not None
        url = f"http://{asked.headers['Host']}/v1/messages/batches/{batch.id}/results"
        return {
            "id": batch.id, "type": "message_batch", "processing_status": "ended" if ended else "in_progress",
            "request_counts": counts, "created_at": batch.at.isoformat(),
            "expires_at": (batch.at + timedelta(hours=24)).isoformat(),
            "ended_at": batch.at.isoformat() if ended else None, "archived_at": None, "cancel_initiated_at": None,
            "results_url": url if ended else None,
        }  # fmt: skip


def _anthropic_error(status: int, kind: str, message: str, world: World | None = None) -> Answer:
    headers = retry_headers(world, str(status)) if world else {}
    return Answer(status, {"type": "error", "error": {"type": kind, "message": message}}, headers)


def _anthropic_fault(world: World, asked: Asked) -> Answer | None:
    errors = {"429": "rate_limit_error", "500": "api_error", "529": "overloaded_error", "401": "authentication_error"}
    fault = asked.fault or ""
    return _anthropic_error(int(fault), errors[fault], f"a {errors[fault]}", world) if fault in errors else None


@dataclass
class GeminiBatches:
    """The batch mode, inline."""

    batches: Batches
    respond: Respond

    def create(self, world: World, asked: Asked) -> Answer:
        """Answer POST /v1beta/models/MODEL:batchGenerateContent."""
        if refused := _gemini_fault(world, asked):
            return refused
        given: Json = asked.body["batch"]
        requests = given["inputConfig"]["requests"]["requests"]
        limit = self.batches.refuse_above
        if limit is not None and len(requests) > limit:
            return _gemini_error(400, "INVALID_ARGUMENT", "the request is too large")
        return Answer(200, self._shown(self.batches.make(requests, given["displayName"])))

    def list(self, world: World, asked: Asked) -> Answer:
        """Answer GET /v1beta/batches: two a page."""
        if refused := _gemini_fault(world, asked):
            return refused
        newest = self.batches.made[::-1]
        first = next((place for place in range(len(newest)) if f"pageToken=p{place}" in asked.path), 0)
        page: Json = {"operations": [self._shown(batch) for batch in newest[first : first + 2]]}
        return Answer(200, page | ({"nextPageToken": f"p{first + 2}"} if first + 2 < len(newest) else {}))

    def get(self, world: World, asked: Asked) -> Answer:
        """Answer GET /v1beta/batches/ID."""
        if refused := _gemini_fault(world, asked):
            return refused
        batch = self.batches.named(asked.path)
        if batch is None:
            return _gemini_error(404, "NOT_FOUND", "no such batch")
        if batch.results is None and batch.look():
            batch.results = [self._result(world, asked, request, self.batches.fate()) for request in batch.requests]
        return Answer(200, self._shown(batch, self.batches.states))

    def _result(self, world: World, asked: Asked, request: Json, fate: str) -> Json:
        named = {"metadata": request["metadata"]} if "metadata" in request else {}
        if fate != "ok":
            return {"error": {"code": int(fate), "message": f"code {fate}"}, **named}
        path = f"/v1beta/{request['request'].get('model', 'models/test-model')}:generateContent"
        answer = self.respond(world, Asked(asked.headers, path, request["request"]))
        assert answer.status == 200, answer.body
        return {"response": answer.body, **named}

    def _shown(self, batch: Made, states: list[str] | None = None) -> Json:
        state = "BATCH_STATE_RUNNING" if batch.results is None else "BATCH_STATE_SUCCEEDED"
        if batch.results is not None and states:
            state, batch.results = states.pop(0), []
        metadata: dict[str, Any] = {
            "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
            "name": f"batches/{batch.id}", "displayName": batch.name, "state": state,
            "createTime": batch.at.isoformat(),
        }  # fmt: skip
        if batch.results:
            metadata["output"] = {"inlinedResponses": {"inlinedResponses": batch.results}}
        return {"name": f"batches/{batch.id}", "metadata": metadata, "done": batch.results is not None}


def _gemini_error(code: int, status: str, message: str) -> Answer:
    return Answer(code, {"error": {"code": code, "status": status, "message": message}})


def _gemini_fault(world: World, asked: Asked) -> Answer | None:
    names = {"429": "RESOURCE_EXHAUSTED", "500": "INTERNAL", "503": "UNAVAILABLE", "401": "UNAUTHENTICATED"}
    fault = asked.fault or ""
    if fault not in names:
        return None
    answer = _gemini_error(int(fault), names[fault], f"an {names[fault]}")
    answer.headers.update(retry_headers(world, fault))
    return answer
