"""Gemini's generateContent and streamGenerateContent, as the test server speaks them."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web
from api_answers import Json, answer_text, tokens_of
from api_world import KEY, MODEL, Answer, Asked, World, retry_headers

_ERRORS: dict[str, tuple[int, str, str]] = {
    "429": (429, "RESOURCE_EXHAUSTED", "You exceeded your current quota, please check your plan and billing details."),
    "500": (500, "INTERNAL", "An internal error has occurred."),
    "502": (502, "INTERNAL", "Bad gateway"),
    "503": (503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    "529": (529, "UNAVAILABLE", "Overloaded"),
    "408": (408, "CANCELLED", "Request timed out"),
    "409": (409, "ABORTED", "Conflict"),
    "401": (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
    "403": (403, "PERMISSION_DENIED", "Your API key {key} was reported as leaked."),
    "quota": (
        429,
        "RESOURCE_EXHAUSTED",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    "no_model": (404, "NOT_FOUND", "models/{model} is not found for API version v1beta"),
    "too_long": (400, "INVALID_ARGUMENT", "The input token count (1100000) exceeds the maximum number of tokens"),
    "too_large": (413, "INVALID_ARGUMENT", "Request payload size exceeds the limit"),
    "policy": (400, "INVALID_ARGUMENT", "The request violates our content policy"),
    "bad_request": (400, "INVALID_ARGUMENT", "Request contains an invalid argument."),
}
_FINISH = {"truncation": "MAX_TOKENS", "filtered": "SAFETY", "refusal": "PROHIBITED_CONTENT"}
_RATINGS = [{"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"}]


def add_routes(app: web.Application, world: World) -> None:
    """Add the API's addresses."""
    handler = world.handler("gemini", generate)
    app.router.add_post("/v1beta/models/{model}:generateContent", handler)
    app.router.add_post("/v1beta/models/{model}:streamGenerateContent", handler)


def generate(world: World, asked: Asked) -> Answer:
    """Answer POST /v1beta/models/MODEL:generateContent, and :streamGenerateContent."""
    body = asked.body
    contents = [body.get("systemInstruction") or {"parts": []}, *body["contents"]]
    prompt = "\n".join(part["text"] for content in contents for part in content["parts"])
    answer = _refused(world, asked) or _answered(world, asked, prompt)
    answer.prompt = prompt
    answer.headers.update(world.rate_headers)
    return answer


def _refused(world: World, asked: Asked) -> Answer | None:
    """Return the error of a request that gets one."""
    fault = asked.fault
    key = asked.headers.get("x-goog-api-key", "")
    model = asked.path.split("/models/")[-1].split(":")[0] if "/models/" in asked.path else MODEL
    if fault == "html_502":
        return Answer(502, "<html><body>502 Bad Gateway</body></html>", {"content-type": "text/html"})
    if key != KEY:
        fault = "401"
    elif not model.startswith(MODEL):
        fault = "no_model"
    if fault is not None and (known := fault if fault in _ERRORS else fault.split("_")[0]) in _ERRORS:
        status, kind, message = _ERRORS[known]
        return Answer(
            status,
            error(status, kind, message.format(key=key, model=model), _notes(world, fault)),
            _headers(world, fault),
        )
    if problem := misuse(world, asked.body):
        return Answer(400, error(400, "INVALID_ARGUMENT", problem, []))
    return None


def _headers(world: World, fault: str) -> dict[str, str]:
    return {} if fault == "429" else retry_headers(world, fault)  # the API itself says it in the body


def error(code: int, status: str, message: str, details: list[Json]) -> Json:
    """Return an error as the API writes it."""
    return {"error": {"code": code, "message": message, "status": status, **({"details": details} if details else {})}}


def _notes(world: World, fault: str) -> list[Json]:
    kind = "type.googleapis.com/google.rpc."
    if fault == "401":
        return [{"@type": f"{kind}ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}]
    if fault not in {"429", "quota"}:
        return []
    period = "Day" if fault == "quota" else "Minute"
    violation = {
        "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
        "quotaId": f"GenerateRequestsPer{period}PerProjectPerModel-FreeTier", "quotaValue": "10",
    }  # fmt: skip
    return [
        {"@type": f"{kind}QuotaFailure", "violations": [violation]},
        {"@type": f"{kind}Help", "links": [{"description": "Learn more", "url": "https://ai.google.dev/"}]},
        {"@type": f"{kind}RetryInfo", "retryDelay": f"{world.retry_after_s:g}s"},
    ]


_SETTINGS = {
    "temperature", "topP", "topK", "seed", "maxOutputTokens", "responseMimeType", "responseJsonSchema",
    "responseSchema", "thinkingConfig", "candidateCount", "stopSequences",
}  # fmt: skip


def misuse(world: World, body: Json) -> str | None:
    """Return what the API would not take in a request."""
    settings = body.get("generationConfig") or {}
    unknown = [*(set(settings) - _SETTINGS), *(name for name in world.rejects if name in settings)]
    if unknown:
        return f"Invalid JSON payload received. Unknown name \"{unknown[0]}\" at 'generation_config'"
    if "responseJsonSchema" in settings and settings.get("responseMimeType") != "application/json":
        return "response_json_schema is set and response_mime_type is not application/json"
    if not -(2**31) <= settings.get("seed", 0) < 2**31:
        return "Invalid value at 'generation_config.seed' (TYPE_INT32)"
    return None


def _answered(world: World, asked: Asked, prompt: str) -> Answer:
    body, fault = asked.body, asked.fault
    settings = body.get("generationConfig") or {}
    text = answer_text(world.rule, prompt, settings.get("responseJsonSchema"))
    text = {
        "truncation": text[: len(text) // 2], "malformed": "{" + text, "no_score": "I cannot say.", "filtered": "",
        "refusal": "",
    }.get(fault or "", text)  # fmt: skip
    thinking = settings.get("thinkingConfig") or {}  # the API takes names in both spellings, and the SDK sends both
    thinks = thinking.get("thinkingBudget", thinking.get("thinking_budget", 0)) > 0
    thought = [{"text": "**7 of 100**", "thought": True}] if thinks else []
    content = {"role": "model", "parts": [*thought, {"text": text}]} if text else {"role": "model"}
    candidate: Json = {"content": content, "finishReason": _FINISH.get(fault or "", "STOP"), "index": 0}
    cached = 1024 if len(prompt) >= 4096 and world.cached("gemini" + prompt[:4096]) else 0
    usage = {
        "promptTokenCount": tokens_of(prompt), "candidatesTokenCount": tokens_of(text),
        "totalTokenCount": tokens_of(prompt) + tokens_of(text) + (5 if thinks else 0),
        **({"cachedContentTokenCount": cached} if cached else {}), **({"thoughtsTokenCount": 5} if thinks else {}),
    }  # fmt: skip
    whole: Json = {
        "candidates": [{**candidate, "safetyRatings": _RATINGS}], "usageMetadata": usage, "modelVersion": MODEL,
        "responseId": f"r{len(world.log)}",
    }  # fmt: skip
    if fault in {"blocked", "empty"}:
        del whole["candidates"]
    if fault == "blocked":
        whole["promptFeedback"] = {"blockReason": "SAFETY", "safetyRatings": _RATINGS}
    answer = Answer(200, whole, tokens=(tokens_of(prompt), cached, tokens_of(text)))
    if ":streamGenerateContent" in asked.path:
        assert "alt=sse" in asked.path, asked.path
        answer.chunks = _chunks(whole, fault)
    return answer


def _chunks(whole: Json, fault: str | None) -> list[bytes]:
    lines: list[Any] = []
    if not whole.get("candidates"):
        lines.append(whole)
    for candidate in whole.get("candidates", ()):
        pieces = [
            {**part, "text": part["text"][at : at + 9]}
            for part in candidate["content"].get("parts", ())
            for at in range(0, len(part["text"]), 9)
        ]
        rest = {name: value for name, value in whole.items() if name != "candidates"}
        for piece in pieces:
            lines.append({**rest, "candidates": [{"content": {"role": "model", "parts": [piece]}, "index": 0}]})
        lines.append({**rest, "candidates": [{**candidate, "content": {"role": "model", "parts": [{"text": ""}]}}]})
    if fault == "stream_error":
        lines[1:] = [error(503, "UNAVAILABLE", "The model is overloaded. Please try again later.", [])]
    return [f"data: {json.dumps(line)}\r\n\r\n".encode() for line in lines]
