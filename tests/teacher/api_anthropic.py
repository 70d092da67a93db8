"""Anthropic's Messages, as the test server speaks them."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web
from api_answers import Json, answer_text, tokens_of
from api_world import KEY, MODEL, Answer, Asked, World, retry_headers

_ERRORS: dict[str, tuple[int, str, str]] = {
    "429": (429, "rate_limit_error", "This request would exceed your organization's rate limit"),
    "500": (500, "api_error", "Internal server error"),
    "502": (502, "api_error", "Bad gateway"),
    "503": (503, "api_error", "Service unavailable"),
    "529": (529, "overloaded_error", "Overloaded"),
    "408": (408, "timeout_error", "Request timed out"),
    "409": (409, "invalid_request_error", "Conflict"),
    "401": (401, "authentication_error", "invalid x-api-key"),
    "403": (403, "permission_error", "Your API key {key} does not have permission"),
    "quota": (400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
    "no_model": (404, "not_found_error", "model: {model}"),
    "too_long": (400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
    "too_large": (413, "request_too_large", "Request exceeds the maximum size"),
    "policy": (400, "invalid_request_error", "Output blocked by content filtering policy"),
    "bad_request": (400, "invalid_request_error", "max_tokens: must be less than 64000"),
}


def add_routes(app: web.Application, world: World) -> None:
    """Add the API's address."""
    app.router.add_post("/v1/messages", world.handler("anthropic", messages))


def messages(world: World, asked: Asked) -> Answer:
    """Answer POST /v1/messages."""
    blocks = [*_blocks(asked.body.get("system")), *_blocks(asked.body["messages"][0]["content"])]
    prompt = "\n".join(block["text"] for block in blocks)
    answer = _refused(world, asked) or _answered(world, asked, prompt, blocks)
    answer.prompt = prompt
    answer.headers.update(world.rate_headers)
    answer.headers["request-id"] = f"req_{len(world.log)}"
    return answer


def _blocks(content: str | list[Json] | None) -> list[Json]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content or []


def error(kind: str, message: str) -> Json:
    """Return an error as the API writes it."""
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_011CSHoEeqs5C35K2UUqR7Fy"}


def _refused(world: World, asked: Asked) -> Answer | None:
    """Return the error of a request that gets one."""
    fault, body = asked.fault, asked.body
    key = asked.headers.get("x-api-key") or asked.headers.get("authorization", "").removeprefix("Bearer ")
    if fault == "html_502":
        return Answer(502, "<html><body>502 Bad Gateway</body></html>", {"content-type": "text/html"})
    if key != KEY:
        fault = "401"
    elif not str(body.get("model", "")).startswith(MODEL):
        fault = "no_model"
    if fault is not None and (known := fault if fault in _ERRORS else fault.split("_")[0]) in _ERRORS:
        status, kind, message = _ERRORS[known]
        text = message.format(key=key, model=body.get("model"))
        return Answer(status, error(kind, text), retry_headers(world, fault))
    if problem := misuse(world, asked):
        return Answer(400, error("invalid_request_error", problem))
    return None


def misuse(world: World, asked: Asked) -> str | None:
    """Return what the API would not take in a request."""
    body, thinking = asked.body, asked.body.get("thinking") or {}
    texts = [*_blocks(body.get("system")), *_blocks(body["messages"][0]["content"])]
    marked = [block for block in (*texts, *body.get("tools", ())) if "cache_control" in block]
    thinks = thinking.get("type") == "enabled"
    rules = [
        ("anthropic-version" not in asked.headers, "anthropic-version: header is required"),
        (not isinstance(body.get("max_tokens"), int), "max_tokens: Field required"),
        (any(not block["text"].strip() for block in texts), "text content blocks must contain non-whitespace text"),
        (len(marked) > 4, "A maximum of 4 blocks with cache_control may be provided."),
        (thinks and thinking["budget_tokens"] < 1024, "thinking.budget_tokens: must be at least 1024"),
        (thinks and thinking["budget_tokens"] >= body["max_tokens"], "`max_tokens` must be greater than the budget"),
        (thinks and body.get("temperature", 1) != 1, "`temperature` may only be set to 1 when thinking is enabled"),
        (thinks and (body.get("tool_choice") or {}).get("type") in {"tool", "any"},
         "Thinking may not be enabled when tool_choice forces tool use."),
        ("seed" in body, "seed: Extra inputs are not permitted"),
    ]  # fmt: skip
    named = [f"{name}: Extra inputs are not permitted" for name in world.rejects if name in body]
    return next((problem for wrong, problem in rules if wrong), next(iter(named), None))


def _answered(world: World, asked: Asked, prompt: str, blocks: list[Json]) -> Answer:
    body, fault = asked.body, asked.fault
    content = _content(world, asked, prompt)
    forced = any(block["type"] == "tool_use" for block in content)
    stop = {"refusal": "refusal", "filtered": "refusal", "blocked": "refusal", "truncation": "max_tokens"}.get(
        fault or "", "tool_use" if forced else "end_turn"
    )
    said = sum(tokens_of(json.dumps(block)) for block in content)
    fresh, read, written = _cache(world, blocks)
    usage = {
        "input_tokens": fresh, "cache_read_input_tokens": read, "cache_creation_input_tokens": written,
        "output_tokens": said, "service_tier": "standard",
        "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
    }  # fmt: skip
    message: Json = {
        "id": f"msg_{len(world.log):024d}", "type": "message", "role": "assistant", "model": body["model"],
        "content": content, "stop_reason": stop, "stop_sequence": None, "usage": usage,
    }  # fmt: skip
    if fault == "empty":
        message = {"type": "message", "content": None}
    answer = Answer(200, message, tokens=(fresh + read + written, read, said))
    if body.get("stream"):
        answer.chunks = [] if fault == "empty" else _events(message, fault)
    return answer


def _content(world: World, asked: Asked, prompt: str) -> list[Json]:
    body, fault = asked.body, asked.fault
    if fault in {"refusal", "filtered", "blocked"}:
        return []
    tools = {tool["name"]: tool["input_schema"] for tool in body.get("tools", ())}
    choice = body.get("tool_choice") or {}
    name = choice.get("name") if choice.get("type") == "tool" else next(iter(tools), None)
    text = answer_text(world.rule, prompt, tools.get(name) if name else None)
    thought = [{"type": "thinking", "thinking": "Let me see: 7 of 100.", "signature": "EqQBCgIYAhIM"}]
    content = thought if (body.get("thinking") or {}).get("type") == "enabled" else []
    if name and fault not in {"malformed", "no_score"}:
        value = {} if fault == "truncation" else json.loads(text)
        return [*content, {"type": "tool_use", "id": "toolu_01A09q90qw90lq917835lq9", "name": name, "input": value}]
    text = {"malformed": "{" + text, "no_score": "I cannot say.", "truncation": text[: len(text) // 2]}.get(
        fault or "", text
    )
    return [*content, {"type": "text", "text": text, "citations": None}]


def _cache(world: World, blocks: list[Json]) -> tuple[int, int, int]:
    """Return the tokens that are neither read from nor written to the cache, those read, and those written."""
    total, read, written, prefix = 0, 0, 0, ""
    for block in blocks:
        prefix += block["text"]
        total += tokens_of(block["text"])
        if "cache_control" in block and total >= world.cache_min_tokens:
            if world.cached("anthropic" + prefix):
                read, written = total, 0
            else:
                written = total - read
    return total - read - written, read, written


def _events(message: Json, fault: str | None) -> list[bytes]:
    usage = message["usage"]
    start = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    events: list[Json] = [{"type": "message_start", "message": start}, {"type": "ping"}]
    for index, block in enumerate(message["content"]):
        first, deltas = _pieces(block)
        events.append({"type": "content_block_start", "index": index, "content_block": first})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": usage["output_tokens"]}})
    events.append({"type": "message_stop"})
    if fault == "stream_error":
        events[3:] = [error("overloaded_error", "Overloaded")]
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]


def _pieces(block: Json) -> tuple[Json, list[Json]]:
    """Return a block as it begins, and its deltas."""
    if block["type"] == "tool_use":
        parts = _cut(json.dumps(block["input"]))
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": part} for part in ["", *parts]]
    if block["type"] == "thinking":
        thought: list[Any] = [{"type": "thinking_delta", "thinking": part} for part in _cut(block["thinking"])]
        signed = {"type": "signature_delta", "signature": block["signature"]}
        return {**block, "thinking": "", "signature": ""}, [*thought, signed]
    return {**block, "text": ""}, [{"type": "text_delta", "text": part} for part in _cut(block["text"])]


def _cut(text: str) -> list[str]:
    return [text[at : at + 7] for at in range(0, len(text), 7)]
