"""OpenAI's chat completions, as the test server speaks them."""

from __future__ import annotations

import json
import time
from typing import Any

from aiohttp import web
from api_answers import Json, answer_text, tokens_of
from api_world import KEY, MODEL, Answer, Asked, World, retry_headers

_ERRORS: dict[str, tuple[int, str, str | None, str]] = {  # status, type, code, message
    "429": (429, "requests", "rate_limit_exceeded", "Rate limit reached for requests"),
    "500": (500, "server_error", None, "The server had an error while processing your request"),
    "502": (502, "server_error", None, "Bad gateway"),
    "503": (503, "server_error", None, "The engine is currently overloaded, please try again later"),
    "529": (529, "server_error", None, "Overloaded"),
    "408": (408, "server_error", None, "Request timeout"),
    "409": (409, "server_error", None, "Conflict"),
    "401": (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided: {key}."),
    "403": (403, "invalid_request_error", "unsupported_country_region_territory", "Country not supported"),
    "quota": (429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota"),
    "no_model": (404, "invalid_request_error", "model_not_found", "The model `{model}` does not exist"),
    "too_long": (400, "invalid_request_error", "context_length_exceeded", "maximum context length is 8192 tokens"),
    "too_large": (413, "invalid_request_error", None, "Request too large"),
    "policy": (400, "invalid_request_error", "content_policy_violation", "rejected by our safety system"),
    "bad_request": (400, "invalid_request_error", "invalid_value", "Invalid value"),
}


def add_routes(app: web.Application, world: World) -> None:
    """Add the API's addresses."""
    app.router.add_post("/v1/chat/completions", world.handler("openai", completions))


def completions(world: World, asked: Asked) -> Answer:
    """Answer POST /v1/chat/completions."""
    body = asked.body
    prompt = "\n".join(_text(message["content"]) for message in body.get("messages", ()))
    answer = _refused(world, asked) or _answered(world, asked, prompt)
    answer.prompt = prompt
    answer.headers.update(world.rate_headers)
    answer.headers["x-request-id"] = f"req_{len(world.log)}"
    return answer


def _text(content: str | list[Json]) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _refused(world: World, asked: Asked) -> Answer | None:
    """Return the error of a request that gets one."""
    fault, body = asked.fault, asked.body
    given = asked.headers.get("Authorization", "")
    if fault == "html_502":
        return Answer(502, "<html><body>502 Bad Gateway</body></html>", {"content-type": "text/html"})
    if not world.keyless and given != f"Bearer {KEY}":
        fault = "401"
    elif not str(body.get("model", "")).startswith(MODEL):
        fault = "no_model"
    if fault is None or (fault.split("_")[0] not in _ERRORS and fault not in _ERRORS):
        return _misused(world, body)
    status, kind, code, message = _ERRORS[fault if fault in _ERRORS else fault.split("_")[0]]
    message = message.format(key=given.removeprefix("Bearer "), model=body.get("model"))
    return Answer(status, error(message, kind, code), retry_headers(world, fault))


def _misused(world: World, body: Json) -> Answer | None:
    """Return a 400 for what the API would not take."""
    if named := [name for name in world.rejects if name in body]:
        message = world.rejection or f"Unsupported parameter: '{named[0]}' is not supported with this model."
        return Answer(400, error(message, "invalid_request_error", "unsupported_parameter", named[0]))
    if "max_tokens" in body and "max_completion_tokens" in body:
        return Answer(400, error("max_tokens and max_completion_tokens", "invalid_request_error", None))
    form = body.get("response_format")
    if form and form.get("type") == "json_schema" and (problem := strictness(form["json_schema"]["schema"])):
        return Answer(400, error(f"Invalid schema for response_format: {problem}", "invalid_request_error", None))
    return None


def strictness(schema: Json) -> str | None:
    """Return what strict mode holds against a schema."""
    if schema.get("type") == "object":
        if schema.get("additionalProperties") is not False:
            return "'additionalProperties' is required to be supplied and to be false"
        if set(schema.get("required", ())) != set(schema["properties"]):
            return "'required' is required to be supplied and to be an array including every key in properties"
        return next((found for value in schema["properties"].values() if (found := strictness(value))), None)
    return strictness(schema["items"]) if schema.get("type") == "array" else None


def error(message: str, kind: str, code: str | None, param: str | None = None) -> Json:
    """Return an error as the API writes it."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _answered(world: World, asked: Asked, prompt: str) -> Answer:
    body, fault = asked.body, asked.fault
    schema = (body.get("response_format") or {}).get("json_schema", {}).get("schema")
    text = answer_text(world.rule, prompt, schema)
    text = {"truncation": text[: len(text) // 2], "malformed": "{" + text, "no_score": "I cannot say."}.get(
        fault or "", text
    )
    message: Json = {"role": "assistant", "content": text, "refusal": None}
    finish = {"truncation": "length", "filtered": "content_filter"}.get(fault or "", "stop")
    if fault == "refusal":
        message.update(content=None, refusal="I'm sorry, I can't assist with that.")
    if fault == "filtered":
        message["content"] = None
    tokens = tokens_of(prompt), _cached(world, prompt), tokens_of(message["content"] or message["refusal"] or "")
    usage = {
        "prompt_tokens": tokens[0], "completion_tokens": tokens[2], "total_tokens": tokens[0] + tokens[2],
        "prompt_tokens_details": {"cached_tokens": tokens[1], "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }  # fmt: skip
    whole = {"id": f"chatcmpl-{len(world.log)}", "created": int(time.time()), "model": body["model"]}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    choices = [] if fault == "empty" else [choice]
    answer = Answer(200, {**whole, "object": "chat.completion", "choices": choices, "usage": usage}, tokens=tokens)
    if body.get("stream"):
        wants_usage = (body.get("stream_options") or {}).get("include_usage")
        answer.chunks = _chunks(whole, choices, usage if wants_usage else None, fault)
    return answer


def _cached(world: World, prompt: str) -> int:
    """The API caches by itself: prefixes from 1024 tokens on."""
    length = 1024 * 4
    return 1024 if len(prompt) >= length and world.cached("openai" + prompt[:length]) else 0


def _chunks(whole: Json, choices: list[Json], usage: Json | None, fault: str | None) -> list[bytes]:
    head = {**whole, "object": "chat.completion.chunk"}
    deltas: list[Json] = []
    for choice in choices:
        message = choice["message"]
        field, text = ("refusal", message["refusal"]) if message["refusal"] else ("content", message["content"] or "")
        pieces = [text[at : at + 7] for at in range(0, len(text), 7)]
        deltas.append({"delta": {"role": "assistant", field: ""}, "finish_reason": None})
        deltas += [{"delta": {field: piece}, "finish_reason": None} for piece in pieces]
        deltas.append({"delta": {}, "finish_reason": choice["finish_reason"]})
    lines: list[Any] = [{**head, "choices": [{"index": 0, "logprobs": None, **delta}]} for delta in deltas]
    if usage is not None:
        lines = [{**line, "usage": None} for line in lines] + [{**head, "choices": [], "usage": usage}]
    if fault == "stream_error":
        lines[2:] = [error("The server had an error while processing your request", "server_error", None)]
    data = [f"data: {json.dumps(line)}\n\n".encode() for line in lines]
    return data if fault == "stream_error" else [*data, b"data: [DONE]\n\n"]
