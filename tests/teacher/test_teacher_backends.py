"""The three APIs' backends: their real SDKs against a server that speaks the protocols, with every fault."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from urllib.request import urlopen

import pytest

pytest.importorskip("aiohttp")  # need_teacher says so where it must be there

from api_server import Server, serve
from api_world import KEY, MODEL, World, by_mark
from asking_apis import APIS, MARK, ask, ask_each, call_of, config_of

from btrm.teacher.base import FinishReason, HaltError, Reply, RequestError, TeacherError, TransientError, Usage

pytestmark = pytest.mark.usefixtures("need_teacher")


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with serve() as server:
        yield server


@pytest.fixture
def server(running: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    for name in ("ANTHROPIC_API_KEY", "GEMINI_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, KEY)
    for name in ("GOOGLE_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    running.world.reset()
    return running


api = pytest.mark.parametrize("api", APIS)
stream = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@api
@stream
@pytest.mark.parametrize("form", ["schema", "tags"])
def test_an_answer_has_its_text_its_tokens_and_what_the_api_said(
    server: Server, api: str, stream: bool, form: str
) -> None:
    reply = ask(config_of(api, server, stream=stream), call_of(form))
    if form == "schema":
        assert json.loads(reply.text) == {"analysis": "It answers.", "score": by_mark("", MARK)}
    else:
        assert f'<score id="{MARK}">{by_mark("", MARK)}</score>' in reply.text
    assert (reply.finish_reason, reply.pause_s) == ("stop", 0.0)
    [noted] = server.world.log
    assert (noted.api, noted.answered, noted.marks) == (api, True, [MARK])
    assert (reply.usage.prompt, reply.usage.output) == (noted.prompt_tokens, noted.completion_tokens)
    assert json.loads(json.dumps(reply.raw)) == reply.raw
    assert MODEL in json.dumps(reply.raw)


@api
def test_a_streamed_answer_is_the_same_reply(server: Server, api: str) -> None:
    config = config_of(api, server, thinking_budget=2048, max_tokens=100)
    calls = [call_of("schema"), call_of("tags")]
    streamed = ask_each(config.model_copy(update={"stream": True}), calls)
    for whole, piecewise in zip(ask_each(config, calls), streamed, strict=True):
        assert isinstance(whole, Reply) and isinstance(piecewise, Reply)
        assert (piecewise.text, piecewise.finish_reason, piecewise.usage) == (whole.text, "stop", whole.usage)
        assert set(whole.raw) - set(piecewise.raw) <= {"object"}


HALTS = {"401": "auth", "403": "auth", "quota": "quota", "no_model": "model"}
REFUSED: dict[str, FinishReason] = {
    "too_long": "prompt_too_long", "too_large": "prompt_too_long", "policy": "content_filter", "bad_request": "error",
}  # fmt: skip
PASSING = {
    "429": "rate_limited", "429_date": "rate_limited", "429_ms": "rate_limited", "429_bare": "rate_limited",
    "500": "server_error", "502": "server_error", "html_502": "server_error", "503": "overloaded", "529": "overloaded",
    "408": "timeout", "409": "server_error", "cut_headers": "connection", "cut_body": "connection",
    "reset": "connection", "garbled": "garbled",
}  # fmt: skip


def failures(server: Server, api: str, faults: Collection[str], **fields: Any) -> dict[str, TeacherError]:
    """Return what asking raises for each fault, after exactly one request each."""
    server.world.script[:] = faults
    before = len(server.world.log)
    errors = ask_each(config_of(api, server, **fields), [call_of()] * len(faults))
    assert [noted.fault for noted in server.world.log[before:]] == [*faults]
    for error in errors:
        assert isinstance(error, TeacherError), error
        assert KEY not in "".join(traceback.format_exception(error)) + repr(error)
        assert str(error).startswith(f"{api}: ")
    return dict(zip(faults, cast("list[TeacherError]", errors), strict=True))


def failure(server: Server, api: str, fault: str, **fields: Any) -> TeacherError:
    """Return what asking raises for a fault."""
    return failures(server, api, [fault], **fields)[fault]


@api
@stream
def test_errors_that_pass_are_left_to_the_asker(server: Server, api: str, stream: bool) -> None:
    server.world.retry_after_s = 7
    errors = failures(server, api, PASSING, stream=stream)
    assert {fault: getattr(error, "fault", error) for fault, error in errors.items()} == PASSING
    waits = {fault: cast("TransientError", error).retry_after_s for fault, error in errors.items()}
    dated = waits.pop("429_date")
    assert dated is not None and 0 < dated <= 7  # a date is told to the second, and read a moment later
    assert waits == {fault: 7 if fault in {"429", "429_ms", "503"} else None for fault in waits}


@api
@stream
def test_errors_that_do_not_pass_are_told_apart(server: Server, api: str, stream: bool) -> None:
    errors = failures(server, api, [*HALTS, *REFUSED], stream=stream)
    assert {fault: error.cause for fault, error in errors.items() if isinstance(error, HaltError)} == HALTS
    refused = {fault: error.finish_reason for fault, error in errors.items() if isinstance(error, RequestError)}
    assert refused == REFUSED


@api
@stream
def test_a_server_that_says_nothing_in_time(server: Server, api: str, stream: bool) -> None:
    error = failure(server, api, "hang", stream=stream, timeout_s=0.2)
    assert isinstance(error, TransientError) and error.fault == "timeout"


@api
def test_nobody_at_the_address(server: Server, api: str) -> None:
    with pytest.raises(TransientError, match="cannot be reached") as caught:
        ask(config_of(api, server, base_url="http://127.0.0.1:9"), call_of())
    assert caught.value.fault == "unreachable"


@api
@stream
def test_answers_that_hold_no_verdict_keep_their_reason(server: Server, api: str, stream: bool) -> None:
    refusal = "content_filter" if api == "gemini" else "refusal"
    filtered = "refusal" if api == "anthropic" else "content_filter"
    ends = {"truncation": "length", "refusal": refusal, "filtered": filtered, "malformed": "stop", "no_score": "stop"}
    server.world.script[:] = ends
    replies = ask_each(config_of(api, server, stream=stream), [call_of()] * len(ends))
    for (fault, reason), reply in zip(ends.items(), replies, strict=True):
        assert isinstance(reply, Reply) and reply.finish_reason == reason, fault
        assert reply.usage.input > 0
        assert str(by_mark("", MARK)) not in reply.text or fault == "malformed"


@stream
def test_a_blocked_prompt_has_no_candidate(server: Server, stream: bool) -> None:
    server.world.script[:] = ["blocked"]
    reply = ask(config_of("gemini", server, stream=stream), call_of())
    assert (reply.text, reply.finish_reason) == ("the prompt was blocked: SAFETY", "content_filter")


@api
@stream
def test_an_answer_without_an_answer_is_tried_again(server: Server, api: str, stream: bool) -> None:
    error = failure(server, api, "empty", stream=stream)
    assert isinstance(error, TransientError) and error.fault in {"garbled", "connection"}


@api
def test_an_error_in_the_middle_of_a_stream(server: Server, api: str) -> None:
    error = failure(server, api, "stream_error", stream=True)
    assert isinstance(error, TransientError)
    assert error.fault == ("server_error" if api == "openai" else "overloaded")


@api
def test_what_was_set_is_asked_for_and_nothing_else(server: Server, api: str) -> None:
    ask(config_of(api, server), call_of("tags"))
    ask(config_of(api, server, temperature=0.5, top_p=0.9, max_tokens=300), call_of("schema", seed=2**40 + 3))
    bare, full = server.world.bodies
    sampling = full.get("generationConfig", full)
    assert not {"temperature", "top_p", "topP", "thinking", "tools", "response_format"} & set(bare)
    assert (sampling["temperature"], sampling.get("top_p", sampling.get("topP"))) == (0.5, 0.9)
    limit = {"anthropic": "max_tokens", "gemini": "maxOutputTokens", "openai": "max_completion_tokens"}[api]
    assert sampling[limit] == 300
    assert sampling.get("seed") == (None if api == "anthropic" else 3)


@api
def test_several_responses_have_room_each_and_thinking_comes_on_top(server: Server, api: str) -> None:
    call = call_of()
    ask(config_of(api, server, max_tokens=100, thinking_budget=2048), replace(call, items=call.items * 3))
    [body] = server.world.bodies
    settings = body.get("generationConfig", body)
    limit = {"anthropic": "max_tokens", "gemini": "maxOutputTokens", "openai": "max_completion_tokens"}[api]
    assert settings[limit] == 2348
    if api == "anthropic":
        assert body["thinking"] == {"type": "enabled", "budget_tokens": 2048}
    if api == "gemini":
        assert settings["thinkingConfig"] in thinking(2048)


def thinking(budget: int) -> list[dict[str, int]]:
    """Gemini's config, in the spellings that the API takes."""
    return [{"thinkingBudget": budget}, {"thinking_budget": budget}]


@stream
def test_thoughts_are_counted_and_not_read(server: Server, stream: bool) -> None:
    for api in ("anthropic", "gemini"):
        reply = ask(config_of(api, server, stream=stream, thinking_budget=1024), call_of())
        assert "7 of 100" in json.dumps(reply.raw) and "7 of 100" not in reply.text
    assert reply.usage.output == server.world.log[-1].completion_tokens + 5


def test_gemini_is_told_not_to_think(server: Server) -> None:
    ask(config_of("gemini", server, thinking_budget=0), call_of())
    assert server.world.bodies[0]["generationConfig"]["thinkingConfig"] in thinking(0)


@stream
def test_anthropics_cache_holds_the_context_of_a_pair(server: Server, stream: bool) -> None:
    cold, warm = call_of(seed=1), call_of(seed=2)
    config = config_of("anthropic", server, stream=stream, prompt_cache="on")
    first, second = ask(config, cold).usage, ask(config, warm).usage
    assert (first.cached, first.cache_written > 0) == (0, True)
    assert second == Usage(first.input, first.output, cached=first.cache_written)
    system, words = server.world.bodies[0]["system"], server.world.bodies[0]["messages"][0]["content"]
    assert ["cache_control" in block for block in (*system, *words)] == [True, True, False]
    ask(config_of("anthropic", server, prompt_cache="off"), cold)
    assert "cache_control" not in json.dumps(server.world.bodies[-1])


@stream
@pytest.mark.parametrize("api", ["gemini", "openai"])
def test_the_apis_own_caches_are_counted(server: Server, api: str, stream: bool) -> None:
    call = call_of(context="The same words. " * 400)
    config = config_of(api, server, stream=stream)
    first, second = ask(config, call).usage, ask(config, call).usage
    assert second == Usage(first.input - 1024, first.output, cached=1024)


def test_nothing_left_means_a_pause(server: Server) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=30)).strftime("%Y-%m-%dT%H:%M:%SZ")
    for remaining, least, most in (("0", 25, 30), ("12", 0, 0)):
        server.world.rate_headers = {
            "x-ratelimit-remaining-requests": remaining, "x-ratelimit-reset-requests": "28s",
            "x-ratelimit-remaining-tokens": "100", "x-ratelimit-reset-tokens": "6m0s",
            "anthropic-ratelimit-tokens-remaining": remaining, "anthropic-ratelimit-tokens-reset": soon,
        }  # fmt: skip
        for api in ("openai", "anthropic"):
            for stream in (False, True):
                assert least <= ask(config_of(api, server, stream=stream), call_of()).pause_s <= most


def test_a_server_that_knows_only_max_tokens_is_asked_so_from_then_on(server: Server) -> None:
    server.world.rejects = ("max_completion_tokens",)
    assert ask(config_of("openai", server), call_of(), call_of()).finish_reason == "stop"
    assert [noted.status for noted in server.world.log] == [400, 200, 200]
    server.world.rejects = ("max_completion_tokens", "max_tokens")
    with pytest.raises(RequestError, match="max_tokens"):
        ask(config_of("openai", server), call_of())


@pytest.mark.parametrize(
    ("message", "asked"),
    [
        ("Unsupported parameter: 'max_completion_tokens' is not supported with this model.", [400, 200]),
        ("max_completion_tokens: Extra inputs are not permitted", [400, 200]),
        ("Unrecognized request argument supplied: max_completion_tokens", [400, 200]),
        ("max_completion_tokens is too large: 99999. This model supports at most 4096 completion tokens", [400]),
        ("Invalid 'max_completion_tokens': integer above maximum value. Expected a value of at most 4096.", [400]),
    ],
)
def test_only_a_name_that_is_unknown_is_changed(server: Server, message: str, asked: list[int]) -> None:
    server.world.rejects, server.world.rejection = ("max_completion_tokens",), message
    ask_each(config_of("openai", server), [call_of()])
    assert [noted.status for noted in server.world.log] == asked


def test_of_many_calls_at_once_only_the_first_finds_out(server: Server) -> None:
    from btrm.teacher.asking import open_backend

    server.world.rejects, server.world.latency_s = ("max_completion_tokens",), 0.05

    async def together() -> list[Reply]:
        backend = open_backend(config_of("openai", server), None)  # type: ignore[arg-type]
        replies = await asyncio.gather(*(backend.ask(call_of()) for _ in range(8)))
        await backend.close()
        return replies

    assert {reply.finish_reason for reply in asyncio.run(together())} == {"stop"}
    assert Counter(noted.status for noted in server.world.log) == {400: 1, 200: 8}


def test_a_slow_first_call_holds_others_up_only_a_little(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from btrm.teacher.asking import open_backend
    from btrm.teacher.backends import openai

    monkeypatch.setattr(openai, "_REFUSAL_S", 0.1)
    server.world.script[:], server.world.slow_s = ["slow", None], 60.0

    async def second_first() -> bool:
        backend = open_backend(config_of("openai", server), None)  # type: ignore[arg-type]
        slow = asyncio.create_task(backend.ask(call_of()))
        await asyncio.sleep(0.05)
        await backend.ask(call_of())
        before = not slow.done()
        slow.cancel()
        await asyncio.gather(slow, return_exceptions=True)
        await backend.close()
        return before

    assert asyncio.run(second_first())


@pytest.mark.parametrize(
    ("api", "model", "room"),
    [
        ("gemini", "test-model-gemini-2.5-flash", 4096),
        ("openai", "test-model/gpt-5-mini", 4096),
        ("openai", "test-model/gpt-4o", 0),
    ],
)
def test_models_that_think_unasked_have_room_for_it(server: Server, api: str, model: str, room: int) -> None:
    ask_each(config_of(api, server, model=model, max_tokens=100), [call_of()])
    ask_each(config_of(api, server, model=model, max_tokens=100, thinking_budget=300), [call_of()])
    limits = [
        body.get("generationConfig", body).get("maxOutputTokens", body.get("max_completion_tokens"))
        for body in server.world.bodies
    ]
    assert limits == [100 + room, 400]


def test_a_forced_tool_gives_way_to_thinking(server: Server) -> None:
    ask(config_of("anthropic", server), call_of("schema"))
    config = config_of("anthropic", server, thinking_budget=1024, structured="tags")
    ask(config, call_of("schema"))
    forced, free = server.world.bodies
    assert forced["tool_choice"] == {"type": "tool", "name": "answer", "disable_parallel_tool_use": True}
    assert free["tool_choice"]["type"] == "auto"


@api
def test_only_the_given_address_is_asked_with_or_without_its_version(
    server: Server, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "GOOGLE_GEMINI_BASE_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "another")
    assert ask(config_of(api, server), call_of()).finish_reason == "stop"
    version = "v1beta" if api == "gemini" else "v1"
    assert ask(config_of(api, server, base_url=f"{server.url}/{version}/"), call_of()).finish_reason == "stop"


@api
def test_the_key_is_in_no_log(server: Server, api: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    faults = [None, "401", "403", "reset", "garbled", "hang"]
    server.world.script[:] = faults
    for reply in ask_each(config_of(api, server, timeout_s=0.3), [call_of()] * len(faults)):
        logging.getLogger("btrm").info("as a stage would write it: %r", reply)
        if isinstance(reply, TeacherError):
            logging.getLogger("btrm").info("with where it came from", exc_info=reply)
    assert caplog.text.count("as a stage") == len(faults)
    assert caplog.text.count("Traceback") >= len(faults) - 1
    assert KEY not in caplog.text


def test_many_calls_at_a_time_get_their_own_answers(server: Server) -> None:
    from btrm.teacher.asking import open_backend

    marks = [f"mark{number:04d}" for number in range(30)]
    calls = [replace(call_of(), question=f"Grade the response {mark}.") for mark in marks]
    server.world.jitter_s = 0.05

    async def together(api: str) -> list[str]:
        backend = open_backend(config_of(api, server, concurrency=30), None)  # type: ignore[arg-type]
        replies = await asyncio.gather(*(backend.ask(call) for call in calls))
        await backend.close()
        return [reply.text for reply in replies]

    for api in APIS:
        for mark, text in zip(marks, asyncio.run(together(api)), strict=True):
            assert f'<score id="{mark}">{by_mark("", mark)}</score>' in text


def test_a_wrong_key_is_told_in_one_line(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = "sk-wrong-98765432109876543210"
    for name in ("ANTHROPIC_API_KEY", "GEMINI_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, wrong)
    for api in APIS:
        with pytest.raises(HaltError) as caught:
            ask(config_of(api, server), call_of())
        assert caught.value.cause == "auth"
        assert "\n" not in str(caught.value) and wrong not in str(caught.value)


def test_faults_are_drawn_the_same_from_the_same_seed() -> None:
    drawn = [[World(rates={"429": 0.2, "reset": 0.1}, seed=seed).fault() for _ in range(1)] for seed in (3, 3, 4)]
    assert drawn[0] == drawn[1]
    world = World(rates={"429": 0.2, "reset": 0.1}, seed=3)
    faults = [world.fault() for _ in range(5000)]
    assert 0.18 < faults.count("429") / 5000 < 0.22 and 0.08 < faults.count("reset") / 5000 < 0.12


def test_the_server_runs_as_a_process_of_its_own(server: Server) -> None:
    script = Path(__file__).with_name("api_server.py")
    settings = json.dumps({"script": ["529"]})
    with subprocess.Popen(
        [sys.executable, script, "--settings", settings], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            other = replace(server, url=f"http://127.0.0.1:{int(process.stdout.readline())}")
            first, second = ask_each(config_of("openai", other), [call_of()] * 2)
            assert isinstance(first, TransientError) and isinstance(second, Reply)
            log = json.load(urlopen(f"{other.url}/log"))
        finally:
            process.terminate()
    assert [(noted["fault"], noted["status"], noted["answered"]) for noted in log] == [
        ("529", 529, False),
        (None, 200, True),
    ]
    assert log[0]["call"] == log[1]["call"] and 0 < log[1]["time"] - log[0]["time"] < 60


@pytest.mark.parametrize("tokens", [None, "12", 12.5, -3, True, {"n": 1}])
def test_counts_that_cannot_be_read_are_unknown_and_lose_no_answer(tokens: Any) -> None:
    from btrm.teacher.backends import anthropic, gemini, openai

    counts = {"prompt_tokens": tokens, "completion_tokens": tokens, "prompt_tokens_details": tokens}
    said = {"choices": [{"message": {"content": "Yes."}, "finish_reason": "stop"}]}
    for usage in (counts, tokens, [tokens]):
        assert openai.reply_of({**said, "usage": usage}, {}).usage == Usage()
    counts = {"input_tokens": tokens, "output_tokens": tokens, "cache_read_input_tokens": tokens}
    message = {"content": [{"type": "text", "text": "Yes."}], "stop_reason": "end_turn"}
    for usage in (counts, tokens, [tokens]):
        assert anthropic.reply_of({**message, "usage": usage}, {}).usage == Usage()
    counts = {"promptTokenCount": tokens, "candidatesTokenCount": tokens, "cachedContentTokenCount": tokens}
    answer = {"candidates": [{"content": {"parts": [{"text": "Yes."}]}, "finishReason": "STOP"}]}
    for usage in (counts, tokens, [tokens]):
        assert gemini.reply_of({**answer, "usageMetadata": usage}).usage == Usage()
    for reply in (openai.reply_of(said, {}), anthropic.reply_of(message, {}), gemini.reply_of(answer)):
        assert (reply.text, reply.usage) == ("Yes.", Usage())


def test_a_message_in_parts_is_read() -> None:
    from btrm.teacher.backends import openai

    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "A "}, {"type": "text", "text": "B"}]
    body = {"choices": [{"message": {"content": parts}, "finish_reason": "stop"}]}
    assert openai.reply_of(body, {}).text == "A B"
    for content in ([{"type": "text"}], ["A"], {"text": "A"}, 7):
        with pytest.raises(TransientError) as caught:
            openai.reply_of({"choices": [{"message": {"content": content}}]}, {})
        assert caught.value.fault == "garbled"
    merged: dict[str, Any] = {}
    for part in parts:
        openai._merge(merged, {"choices": [{"delta": {"content": [part]}}]})
    assert merged["choices"][0]["message"]["content"] == "A B"
