"""What the test server of the three APIs knows and does: its rule, its faults, its log of every request."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from email.utils import formatdate
from typing import Any

from aiohttp import web
from api_answers import Json, Rule, by_mark, digest_of, marks_in

KEY = "sk-test-0123456789abcdefghij"  # the one that the server takes
MODEL = "test-model"  # and the models: every name that begins so

# What becomes of the connection, whichever API is asked. The other faults are errors and answers of the APIs' own.
TRANSPORT = ("slow", "cut_headers", "cut_body", "reset", "garbled", "hang")
ERRORS = (
    "429", "429_date", "429_ms", "429_bare", "500", "502", "503", "529", "408", "409",
    "401", "403", "quota", "no_model", "too_long", "too_large", "policy", "bad_request", "html_502",
)  # fmt: skip
ANSWERS = ("refusal", "truncation", "filtered", "empty", "malformed", "no_score", "blocked", "stream_error")
FAULTS = (*TRANSPORT, *ERRORS, *ANSWERS)


@dataclass
class Noted:
    """A request: when it came (epoch seconds), what it asked (`call` is a digest of the prompt), what it got."""

    time: float
    api: str
    path: str
    call: str
    marks: list[str]
    fault: str | None
    status: int = 0  # 0: no status line was sent
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    answered: bool = False  # the whole answer was sent, and it is one that counts
    done: float | None = None
    key_ok: bool = True


@dataclass
class Asked:
    """A request on its way to an API's own function. `prompt` is all its text in order."""

    headers: Mapping[str, str]
    path: str
    body: Json
    fault: str | None = None
    stream: bool = False


@dataclass
class Answer:
    """What an API's function returns. `chunks` are the pieces of the body where it streams."""

    status: int
    body: Json | list[Json] | str
    headers: dict[str, str] = field(default_factory=dict[str, str])
    chunks: list[bytes] | None = None
    prompt: str = ""
    tokens: tuple[int, int, int] = (0, 0, 0)  # prompt, cached, completion


@dataclass
class World:
    """The state of a server. Faults are taken from `script` first, one a request, then drawn by `rates`."""

    rule: Rule = by_mark
    rates: dict[str, float] = field(default_factory=dict[str, float])
    script: list[str | None] = field(default_factory=list[str | None])
    seed: int = 0
    latency_s: float = 0.0
    jitter_s: float = 0.0
    slow_s: float = 3.0
    retry_after_s: float = 1.0
    rate_headers: dict[str, str] = field(default_factory=dict[str, str])
    cache_min_tokens: int = 0
    keyless: bool = False
    no_schema: bool = False  # OpenAI-compatible servers that do not know response_format json_schema
    rejects: tuple[str, ...] = ()  # fields of a request that are answered with a 400 that names them
    rejection: str = ""  # and what that 400 says
    log: list[Noted] = field(default_factory=list[Noted])
    bodies: list[Json] = field(default_factory=list[Json])
    keep_bodies: bool = True
    seen: set[str] = field(default_factory=set[str])  # prefixes in the cache
    stop: asyncio.Event | None = None

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def reset(self) -> None:
        """Forget everything, in a server that goes on."""
        self.__dict__.update(World().__dict__, stop=self.stop)

    def fault(self) -> str | None:
        """Return the next request's fault."""
        if self.script:
            return self.script.pop(0)
        drawn = self.random.random()
        for name, rate in self.rates.items():
            drawn -= rate
            if drawn < 0:
                return name
        return None

    def configure(self, changes: Json) -> None:
        """Take new settings while the server runs."""
        for name, value in changes.items():
            assert name in {"rates", "script", "latency_s", "jitter_s", "slow_s", "retry_after_s", "rate_headers"}, name
            setattr(self, name, value)
        unknown = {*self.rates, *(f for f in self.script if f)} - set(FAULTS)
        assert not unknown, f"no such faults: {sorted(unknown)}"

    def cached(self, prefix: str) -> bool:
        """Look for a prefix in the cache, and put it there."""
        digest = digest_of(prefix)
        found = digest in self.seen
        self.seen.add(digest)
        return found

    def handler(self, api: str, respond: Callable[[World, Asked], Answer]) -> Callable[[web.Request], Any]:
        """Return aiohttp's handler of an API's function: it notes the request, draws its fault and sends the answer."""

        async def handle(request: web.Request) -> web.StreamResponse:
            noted = Noted(time.time(), api, request.path, "", [], self.fault())
            self.log.append(noted)
            body = await request.json() if request.can_read_body else {}
            if self.keep_bodies:
                self.bodies.append(body)
            asked = Asked(request.headers, request.path_qs, body, noted.fault)
            answer = respond(self, asked)
            noted.call, noted.marks = digest_of(answer.prompt), marks_in(answer.prompt)
            noted.key_ok = answer.status != 401
            return await self._send(request, answer, noted)

        return handle

    async def _send(self, request: web.Request, answer: Answer, noted: Noted) -> web.StreamResponse:
        wait_s = self.latency_s + self.random.uniform(0, self.jitter_s)
        if noted.fault == "hang" or noted.fault == "slow":
            wait_s = 3600.0 if noted.fault == "hang" else self.slow_s
        await self._sleep(wait_s)
        body = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
        data = b"".join(answer.chunks) if answer.chunks is not None else body.encode()
        if noted.fault == "garbled":
            data = _garbled(answer, data)
        if noted.fault in {"cut_headers", "cut_body", "reset"}:
            return await _broken(request, answer, data, noted.fault)
        noted.status = answer.status
        noted.prompt_tokens, noted.cached_tokens, noted.completion_tokens = answer.tokens
        try:
            response = await _whole(request, answer, data, noted.fault == "garbled")
        except ConnectionResetError:  # the other side has not waited
            return web.Response()
        noted.answered = answer.status == 200 and noted.fault not in {"garbled", "empty", "stream_error"}
        noted.done = time.time()
        return response

    async def _sleep(self, seconds: float) -> None:
        if self.stop is None or not seconds:
            return await asyncio.sleep(seconds)
        with suppress(TimeoutError):
            await asyncio.wait_for(self.stop.wait(), seconds)
        return None

    def log_json(self) -> list[Json]:
        """Return the log as JSON."""
        return [asdict(noted) for noted in self.log]


async def _whole(request: web.Request, answer: Answer, data: bytes, garbled: bool) -> web.StreamResponse:
    kind = "text/event-stream" if answer.chunks is not None else "application/json"
    headers = {"content-type": kind, **answer.headers}
    if answer.chunks is None or garbled:
        return web.Response(status=answer.status, body=data, headers=headers)
    response = web.StreamResponse(status=answer.status, headers=headers)
    await response.prepare(request)
    for chunk in answer.chunks:
        await response.write(chunk)
    await response.write_eof()
    return response


def _garbled(answer: Answer, data: bytes) -> bytes:
    """Return an answer whose JSON breaks off in the middle, of one event where it streams."""
    if not answer.chunks:
        return data[: len(data) // 2]
    middle = len(answer.chunks) // 2
    return b"".join([*answer.chunks[:middle], answer.chunks[middle].rstrip()[:-2] + b"\n\n"])


async def _broken(request: web.Request, answer: Answer, data: bytes, fault: str) -> web.StreamResponse:
    """Close the socket before, or in the middle of, the answer."""
    transport = request.transport
    assert transport is not None
    response = web.StreamResponse(status=answer.status, headers={"content-type": "application/json", **answer.headers})
    response.content_length = len(data)
    if fault != "reset":
        await response.prepare(request)
    if fault == "cut_body":
        await response.write(data[: len(data) // 2])
    if fault == "reset":  # no FIN: the other side sees a reset connection
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    else:
        transport.close()
    return response


def retry_headers(world: World, fault: str) -> dict[str, str]:
    """Return the headers that ask to wait, in the form that the fault wants."""
    if fault == "429_date":
        return {"retry-after": formatdate(time.time() + world.retry_after_s, usegmt=True)}
    if fault == "429_ms":
        return {"retry-after-ms": str(int(world.retry_after_s * 1000))}
    return {"retry-after": f"{world.retry_after_s:g}"} if fault in {"429", "503"} else {}
