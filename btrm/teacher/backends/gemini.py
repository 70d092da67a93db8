"""Google's Gemini API, by its own SDK."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from importlib import import_module
from typing import Any, cast, get_args

from btrm.runs import StageRun
from btrm.teacher.backends.http_errors import Problem, read_json
from btrm.teacher.backends.waits import wait
from btrm.teacher.backends.wire import Wire, api_seed, count, given, most_tokens, patience_s, readable, section, whole
from btrm.teacher.base import Call, FinishReason, HaltError, Reply, Usage
from btrm.teacher.config import TeacherConfig
from btrm.teacher.keys import read_key

ADDRESS = "https://generativelanguage.googleapis.com"
_VERSION = "v1beta"
# What ends an answer otherwise is a filter: SAFETY, RECITATION, BLOCKLIST, PROHIBITED_CONTENT, SPII, OTHER …
_FINISH: dict[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    "MALFORMED_RESPONSE": "stop",
}
_Body = dict[str, Any]


class GeminiBackend:
    """One client of the API."""

    def __init__(self, config: TeacherConfig) -> None:
        key = read_key(config)
        self._config = config
        self._wire = Wire("gemini", key, problem_of)
        self._http = open_http(config)
        self._client = open_client(config, key.value, self._http)

    async def ask(self, call: Call) -> Reply:
        """Ask once."""
        with self._wire.errors():
            return reply_of(await self._sent(call))

    async def _sent(self, call: Call) -> _Body:
        models = self._client.aio.models
        asked = {"model": self._config.model, "contents": call.context + call.question}
        config = {**settings(self._config, call), **_asked_once()}
        if not self._config.stream:
            answer = await models.generate_content(**asked, config={**config, "should_return_http_response": True})
            return read_json(answer.sdk_http_response.body or "")
        merged: _Body = {}
        async with aclosing(await models.generate_content_stream(**asked, config=config)) as stream:
            with readable():
                async for chunk in stream:
                    _merge(merged, chunk.model_dump(mode="json", by_alias=True, exclude_none=True))
        return whole(merged, _ended(merged))

    async def close(self) -> None:
        """Close the connections."""
        self._client.close()
        await self._http.aclose()


def open_http(config: TeacherConfig) -> Any:
    """Return an HTTP client of the library that the SDK takes."""
    from google.genai import types

    kind = (get_args(types.HttpxAsyncClient) or (types.HttpxAsyncClient,))[-1]
    http: Any = import_module(kind.__module__.partition(".")[0])
    limits = http.Limits(max_connections=None, max_keepalive_connections=config.concurrency)
    return http.AsyncClient(limits=limits, timeout=patience_s(config))


def open_client(config: TeacherConfig, key: str, http: Any) -> Any:
    """Return the SDK's client, which asks once and waits as long as the config says.

    With an HTTP client of its own it may choose aiohttp, with which it asks again where a connection was lost.
    """
    from google import genai

    options = genai.types.HttpOptions(
        base_url=(config.base_url or ADDRESS).rstrip("/").removesuffix(f"/{_VERSION}"),
        api_version=_VERSION,
        timeout=max(1, round(patience_s(config) * 1000)),
        httpx_async_client=http,
    )
    return genai.Client(api_key=key, vertexai=False, http_options=options)


def settings(config: TeacherConfig, call: Call) -> _Body:
    """Return what the SDK calls the config of a request: all of it but the model and the words of the user."""
    schema, thinks = call.schema, config.thinking_budget
    return given(
        {
            "system_instruction": call.system or None,
            "max_output_tokens": most_tokens(config, call),
            "seed": api_seed(call),
            "temperature": config.temperature,
            "top_p": config.top_p,
            "thinking_config": None if thinks is None else {"thinking_budget": thinks},
            "response_mime_type": None if schema is None else "application/json",
            "response_json_schema": None if schema is None else dict(schema),
        }
    )


def _asked_once() -> _Body:
    """Return what keeps the SDK from more requests than one: newer ones go on by themselves where an answer was cut."""
    from google.genai.types import GenerateContentConfig

    unwanted: _Body = {"automatic_function_calling": {"disable": True}, "automatic_continuation": False}
    return {name: value for name, value in unwanted.items() if name in GenerateContentConfig.model_fields}


def reply_of(body: _Body) -> Reply:
    """Read a response. Raises TransientError for what is none, HaltError where the account is shut out."""
    with readable():
        usage = usage_of(section(body.get("usageMetadata")))
        blocked = (body.get("promptFeedback") or {}).get("blockReason")
        if blocked and not body.get("candidates"):
            return Reply(f"the prompt was blocked: {blocked}", "content_filter", usage, body)
        first = body["candidates"][0]
        reason = first.get("finishReason") or "STOP"
        parts = (first.get("content") or {}).get("parts") or []
        text = "".join(part.get("text", "") for part in parts if not part.get("thought"))
    if reason == "PUP_LIMITED_DISABLED":
        raise HaltError("the account is limited or disabled by the prohibited use policy", "auth")
    return Reply(text, _FINISH.get(reason, "content_filter"), usage, body)


def usage_of(usage: Mapping[str, Any]) -> Usage:
    """Return the tokens; the API's promptTokenCount holds those from its cache, and thoughts are apart."""
    cached, prompt = count(usage.get("cachedContentTokenCount")), count(usage.get("promptTokenCount"))
    output = count(usage.get("candidatesTokenCount")) + count(usage.get("thoughtsTokenCount"))
    return Usage(max(prompt - cached, 0), output, min(cached, prompt))


def problem_of(error: Exception) -> Problem | None:
    """Return an SDK's error in the words of all APIs.

    A quota of a day that is used up stops everyone; one of a minute passes.
    """
    from google.genai.errors import APIError

    if not isinstance(error, APIError):
        return None
    details: Any = error.details if isinstance(error.details, dict) else {}
    told: Any = details.get("error", details)
    notes = [note for note in cast("list[Any]", told.get("details") or []) if isinstance(note, dict)]
    names = {str(name) for note in notes if (name := note.get("reason"))} | {str(error.status)}
    quotas = [str(quota.get("quotaId")) for note in notes for quota in note.get("violations") or []]
    if any("PerDay" in quota for quota in quotas):
        names.add("insufficient_quota")
    delays = [wait(note["retryDelay"]) for note in notes if "retryDelay" in note]
    headers = getattr(error.response, "headers", None) or {}
    return Problem(
        error.code or 500, str(error.message or error.status), frozenset(names), headers, max(delays, default=None)
    )


def _merge(merged: _Body, chunk: _Body) -> None:
    """Put a chunk into what will look like a response that was not streamed."""
    chunk.pop("sdkHttpResponse", None)
    for piece in chunk.pop("candidates", None) or []:
        first = merged.setdefault("candidates", [{"content": {"role": "model", "parts": []}}])[0]
        for part in (piece.pop("content", None) or {}).get("parts") or []:
            _append(first["content"]["parts"], part)
        first.update(piece)
    merged.update(chunk)


def _append(parts: list[_Body], part: _Body) -> None:
    """Add a part, to the one before it where both are pieces of one text."""
    last = parts[-1] if parts else {}
    if "text" in last and {**last, "text": ""} == {**part, "text": ""}:
        last["text"] += part["text"]
    else:
        parts.append(part)


def _ended(merged: _Body) -> bool:
    candidates = merged.get("candidates")
    return bool(candidates[0].get("finishReason")) if candidates else "promptFeedback" in merged


def open_backend(config: TeacherConfig, run: StageRun) -> GeminiBackend:
    """Return the client of the API. Raises ConfigError where its key is missing."""
    del run
    return GeminiBackend(config)
