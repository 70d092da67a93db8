"""Any server that speaks OpenAI's chat completions: OpenAI's own, vLLM serve, OpenRouter and others."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

from btrm.runs import StageRun
from btrm.teacher.backends.http_errors import Problem, read_json
from btrm.teacher.backends.waits import pause_s
from btrm.teacher.backends.wire import Wire, api_seed, count, given, most_tokens, patience_s, readable, section, whole
from btrm.teacher.base import Call, FinishReason, Reply, RequestError, TransientError, Usage
from btrm.teacher.config import TeacherConfig
from btrm.teacher.keys import read_key

_ADDRESS = "https://api.openai.com/v1"
_FINISH: dict[str, FinishReason] = {"stop": "stop", "length": "length", "content_filter": "content_filter"}
_LIMITS = tuple((f"x-ratelimit-remaining-{of}", f"x-ratelimit-reset-{of}") for of in ("requests", "tokens"))
_NEWER, _OLDER = "max_completion_tokens", "max_tokens"
_UNKNOWN = re.compile(
    r"un(supported|known|recogni[sz]ed|expected)|not (supported|permitted|allowed|recogni[sz]ed)|extra (inputs|fields)"
    r"|invalid (parameter|argument|field)|no such",
    re.IGNORECASE,
)
_TOO_LARGE = re.compile(
    r"too (large|long|high|big|many)|at most|exceed|less than|larger than|greater than", re.IGNORECASE
)
_REFUSAL_S = 5.0  # a server that does not know a name says so at once; a longer answer is none of that
_Body = dict[str, Any]


class OpenAIBackend:
    """One client of a server. A thinking budget only makes room: the API has no field for one."""

    def __init__(self, config: TeacherConfig) -> None:
        from openai import AsyncOpenAI

        key = read_key(config)
        self._config = config
        self._wire = Wire("openai", key, problem_of)
        self._client = AsyncOpenAI(
            api_key=key.value, base_url=config.base_url or _ADDRESS, max_retries=0, timeout=patience_s(config)
        )
        self._limit = _NEWER
        self._first: asyncio.Event | None = None  # set when the first call has ended

    async def ask(self, call: Call) -> Reply:
        """Ask once; the first call twice where the server knows only the older name of the limit.

        No gate grants that second request, so others wait a little for what the first call finds out.
        """
        if self._first is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._first.wait(), _REFUSAL_S)
            return await self._by_known_name(call)
        self._first = asyncio.Event()
        try:
            return await self._by_known_name(call)
        finally:
            self._first.set()

    async def _by_known_name(self, call: Call) -> Reply:
        limit = self._limit
        try:
            return await self._ask(call, limit)
        except RequestError as error:
            if limit != _NEWER or not _unknown(_NEWER, str(error)):
                raise
            self._limit = _OLDER
            return await self._ask(call, self._limit)

    async def _ask(self, call: Call, limit: str) -> Reply:
        with self._wire.errors():
            body, headers = await self._sent(request(self._config, call, limit))
            return reply_of(body, headers)

    async def _sent(self, fields: _Body) -> tuple[_Body, Mapping[str, str]]:
        completions = self._client.chat.completions
        if not self._config.stream:
            raw = await completions.with_raw_response.create(**fields)
            return read_json(raw.content), raw.headers
        merged: _Body = {}
        streamed: _Body = {**fields, "stream": True, "stream_options": {"include_usage": True}}
        async with cast("Any", await completions.create(**streamed)) as stream:
            with readable():
                async for chunk in stream:
                    _merge(merged, chunk.to_dict())
        return whole(merged, _ended(merged)), stream.response.headers

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _unknown(name: str, message: str) -> bool:
    """Say whether a server does not know a field, rather than dislike its value."""
    return name in message and bool(_UNKNOWN.search(message)) and not _TOO_LARGE.search(message)


def request(config: TeacherConfig, call: Call, limit: str) -> _Body:
    """Return a request's fields; `limit` is the name under which the server takes the longest answer."""
    messages = [{"role": "system", "content": call.system}] if call.system else []
    fields: _Body = {
        "model": config.model,
        "messages": [*messages, {"role": "user", "content": call.context + call.question}],
        limit: most_tokens(config, call),
        "seed": api_seed(call),
        "temperature": config.temperature,
        "top_p": config.top_p,
    }
    if call.form == "schema":
        answer = {"name": "answer", "strict": True, "schema": call.schema}
        fields["response_format"] = {"type": "json_schema", "json_schema": answer}
    return given(fields)


def reply_of(body: _Body, headers: Mapping[str, str]) -> Reply:
    """Read a completion. Raises TransientError for one that holds no answer."""
    if "error" in body and not body.get("choices"):  # OpenRouter answers 200 where the model behind it failed
        error: Any = body["error"]
        raise TransientError(f"an error instead of an answer: {error}"[:500], "server_error")
    with readable():
        choice = body["choices"][0]
        message, ended = choice["message"], choice.get("finish_reason") or "stop"
        text, refusal = _without_thinking(_said(message.get("content"))), message.get("refusal")
        usage = usage_of(section(body.get("usage")))
    if ended == "error":
        raise TransientError("the model failed in the middle of its answer", "server_error")
    finish = "refusal" if refusal else _FINISH.get(ended, "stop")
    return Reply(refusal or text, finish, usage, body, pause_s(headers, _LIMITS))


def _said(content: Any) -> str:
    """Return what a message says; some servers give it in parts, of which only those of text are the answer."""
    if isinstance(content, list):
        parts = cast("list[dict[str, Any]]", content)
        return "".join(part["text"] for part in parts if part.get("type") == "text")
    return content or ""


def _without_thinking(text: str) -> str:
    """Return an answer without the thinking before it, where a server has not taken that out."""
    thought, end, answer = text.partition("</think>")
    return answer if end and thought.lstrip().startswith("<think>") else text


def usage_of(usage: Mapping[str, Any]) -> Usage:
    """Return the tokens; the API's prompt_tokens hold those from its cache."""
    cached = count(section(usage.get("prompt_tokens_details")).get("cached_tokens"))
    prompt = count(usage.get("prompt_tokens"))
    return Usage(max(prompt - cached, 0), count(usage.get("completion_tokens")), min(cached, prompt))


def problem_of(error: Exception) -> Problem | None:
    """Return an SDK's error in the words of all APIs."""
    from openai import APIConnectionError, APIError, APIStatusError

    if not isinstance(error, APIError) or isinstance(error, APIConnectionError):
        return None
    names = frozenset(str(name) for name in (error.code, error.type) if name)
    body: Any = error.body if isinstance(error.body, dict) else {}
    message = str(body.get("message") or error.message)
    if isinstance(error, APIStatusError):
        return Problem(error.status_code, message, names, error.response.headers)
    code = error.code or ""  # in the middle of a stream
    return Problem(int(code) if code.isdigit() else 500, message, names)


def _merge(merged: _Body, chunk: _Body) -> None:
    """Put a chunk into what will look like a completion that was not streamed."""
    for name in ("id", "model", "created", "usage", "error"):
        if chunk.get(name) is not None:
            merged[name] = chunk[name]
    for piece in chunk.get("choices") or []:
        choice = merged.setdefault("choices", [{"message": {"role": "assistant"}, "finish_reason": None}])[0]
        for name, said in (piece.get("delta") or {}).items():
            text = _said(said) if name == "content" else said
            if isinstance(text, str) and name != "role":
                choice["message"][name] = choice["message"].get(name, "") + text
        choice["finish_reason"] = piece.get("finish_reason") or choice["finish_reason"]


def _ended(merged: _Body) -> bool:
    return "error" in merged or bool(merged.get("choices") and merged["choices"][0]["finish_reason"])


def open_backend(config: TeacherConfig, run: StageRun) -> OpenAIBackend:
    """Return the client of a server. Raises ConfigError where its key is missing."""
    del run
    return OpenAIBackend(config)
