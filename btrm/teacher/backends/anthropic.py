"""Anthropic's Messages, by its own SDK."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from btrm.runs import StageRun
from btrm.teacher.backends.http_errors import Problem, read_json
from btrm.teacher.backends.waits import pause_s
from btrm.teacher.backends.wire import Wire, count, given, most_tokens, patience_s, readable, section, whole
from btrm.teacher.base import Call, FinishReason, Reply, Usage
from btrm.teacher.caching import cacheable, system_cacheable
from btrm.teacher.config import TeacherConfig
from btrm.teacher.keys import read_key

ADDRESS = "https://api.anthropic.com"
TOOL = "answer"
_FINISH: dict[str, FinishReason] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "refusal",
}
_LIMITS = tuple(
    (f"anthropic-ratelimit-{of}-remaining", f"anthropic-ratelimit-{of}-reset")
    for of in ("requests", "tokens", "input-tokens", "output-tokens")
)
_STATUS = {  # of errors that come in the middle of a stream
    "invalid_request_error": 400, "authentication_error": 401, "billing_error": 402, "permission_error": 403,
    "not_found_error": 404, "request_too_large": 413, "rate_limit_error": 429, "api_error": 500, "timeout_error": 504,
    "overloaded_error": 529,
}  # fmt: skip
_CACHED = {"cache_control": {"type": "ephemeral"}}
_Body = dict[str, Any]


class AnthropicBackend:
    """One client of the API."""

    def __init__(self, config: TeacherConfig) -> None:
        key = read_key(config)
        self._config = config
        self._wire = Wire("anthropic", key, problem_of)
        self._client = open_client(config, key.value)

    async def ask(self, call: Call) -> Reply:
        """Ask once."""
        with self._wire.errors():
            body, headers = await self._sent(request(self._config, call))
            return reply_of(body, headers)

    async def _sent(self, fields: _Body) -> tuple[_Body, Mapping[str, str]]:
        messages = self._client.messages
        # Newer SDKs have no arguments for these: their newest models take none.
        fields["extra_body"] = {name: fields.pop(name) for name in ("temperature", "top_p") if name in fields}
        if not self._config.stream:
            raw = (await messages.with_raw_response.create(**fields)).http_response
            return read_json(await raw.aread()), raw.headers
        merged: _Body = {}
        async with await messages.create(**fields, stream=True) as stream:
            with readable():
                async for event in stream:
                    _merge(merged, event.to_dict())
        return whole(merged, merged.pop("ended", False)), stream.response.headers

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def open_client(config: TeacherConfig, key: str) -> Any:
    """Return the SDK's client, which asks once and waits as long as the config says."""
    import anthropic

    limits = type(anthropic.DEFAULT_CONNECTION_LIMITS)(
        max_connections=None, max_keepalive_connections=config.concurrency
    )
    return anthropic.AsyncAnthropic(
        api_key=key,
        base_url=(config.base_url or ADDRESS).rstrip("/").removesuffix("/v1"),
        max_retries=0,
        timeout=patience_s(config),
        http_client=anthropic.DefaultAsyncHttpxClient(limits=limits, timeout=patience_s(config)),
    )


def request(config: TeacherConfig, call: Call) -> _Body:
    """Return a request's fields.

    A schema is the input of a tool that must be used; while the model thinks the API lets none be forced.
    """
    cached = _CACHED if cacheable(config, call) else {}
    told = cached or (_CACHED if system_cacheable(config, call) else {})
    words = [{"type": "text", "text": call.context, **cached}] if call.context else []
    fields: _Body = {
        "model": config.model,
        "max_tokens": most_tokens(config, call),
        "system": [{"type": "text", "text": call.system, **told}] if call.system else None,
        "messages": [{"role": "user", "content": [*words, {"type": "text", "text": call.question}]}],
        "temperature": config.temperature,
        "top_p": config.top_p,
    }
    if config.thinking_budget:
        fields["thinking"] = {"type": "enabled", "budget_tokens": config.thinking_budget}
    if call.schema is not None:
        fields["tools"] = [{"name": TOOL, "description": "Give the answer.", "input_schema": call.schema}]
        forced = {"type": "auto"} if config.thinking_budget else {"type": "tool", "name": TOOL}
        fields["tool_choice"] = {**forced, "disable_parallel_tool_use": True}
    return given(fields)


def reply_of(body: _Body, headers: Mapping[str, str]) -> Reply:
    """Read a message. Raises TransientError for what is none."""
    with readable():
        blocks = body["content"]
        used = [json.dumps(block["input"]) for block in blocks if block["type"] == "tool_use"]
        said = [block["text"] for block in blocks if block["type"] == "text"]
        finish = _FINISH.get(body["stop_reason"], "stop")
        usage = usage_of(section(body.get("usage")))
    return Reply("\n".join(used) or "".join(said), finish, usage, body, pause_s(headers, _LIMITS))


def usage_of(usage: Mapping[str, Any]) -> Usage:
    """Return the tokens; the API counts what its cache gave or took apart from the input."""
    return Usage(
        input=count(usage.get("input_tokens")),
        output=count(usage.get("output_tokens")),
        cached=count(usage.get("cache_read_input_tokens")),
        cache_written=count(usage.get("cache_creation_input_tokens")),
    )


def problem_of(error: Exception) -> Problem | None:
    """Return an SDK's error in the words of all APIs."""
    from anthropic import APIStatusError

    if not isinstance(error, APIStatusError):
        return None
    body: Any = error.body if isinstance(error.body, dict) else {}
    told: Any = body.get("error") if isinstance(body.get("error"), dict) else {}
    kind, message = str(told.get("type") or ""), str(told.get("message") or error.message)
    code: Any = (told.get("details") or {}).get("error_code")
    status = error.status_code if error.status_code >= 400 else _STATUS.get(kind, 500)
    return Problem(status, message, frozenset({kind, str(code)}), error.response.headers)


def _merge(message: _Body, event: _Body) -> None:
    """Put an event into what will look like a message that was not streamed."""
    match event["type"]:
        case "message_start":
            message.update(event["message"])
        case "content_block_start":
            message["content"].append(event["content_block"])
        case "content_block_delta":
            _grow(message["content"][event["index"]], event["delta"])
        case "content_block_stop":
            _finish(message["content"][event["index"]])
        case "message_delta":
            message.update(given(event["delta"]))
            message["usage"] = {**section(message.get("usage")), **given(section(event.get("usage")))}
        case "message_stop":
            message["ended"] = True
        case _:
            pass


def _grow(block: _Body, delta: _Body) -> None:
    for name, text in delta.items():
        if isinstance(text, str) and name != "type":
            block[name] = (block.get(name) or "") + text


def _finish(block: _Body) -> None:
    """Turn a tool's input into its value; one that was cut stays text."""
    text = block.pop("partial_json", None)
    if text is not None:
        try:
            block["input"] = json.loads(text)
        except ValueError:
            block["input"] = text


def open_backend(config: TeacherConfig, run: StageRun) -> AnthropicBackend:
    """Return the client of the API. Raises ConfigError where its key is missing."""
    del run
    return AnthropicBackend(config)
