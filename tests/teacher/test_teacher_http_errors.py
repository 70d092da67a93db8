"""What an API's error means, and how long its headers ask to wait."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from btrm.teacher.backends.http_errors import Problem, error_of, lost, read_json
from btrm.teacher.backends.waits import pause_s, retry_after_s, wait
from btrm.teacher.backends.wire import Wire
from btrm.teacher.base import HaltError, RequestError, TransientError
from btrm.teacher.keys import Key


@pytest.mark.parametrize(
    ("status", "message", "names", "cause"),
    [
        (402, "Insufficient credits. Add more at the provider's site", [], "quota"),
        (400, "Your credit balance is too low to access the API", ["invalid_request_error"], "quota"),
        (400, "You have reached your specified API usage limits.", ["invalid_request_error"], "quota"),
        (429, "You exceeded your current quota", ["insufficient_quota"], "quota"),
        (429, "Spend limit", ["rate_limit_error", "enforced_spend_limit_reached"], "quota"),
        (429, "Quota exceeded for metric: free_tier_requests, limit: 0", ["RESOURCE_EXHAUSTED"], "quota"),
        (400, "Free tier is not available. Please enable billing", ["FAILED_PRECONDITION"], "quota"),
        (401, "No cookie auth credentials found", [], "auth"),
        (403, "Permission denied", ["PERMISSION_DENIED"], "auth"),
        (400, "API key not valid", ["INVALID_ARGUMENT", "API_KEY_INVALID"], "auth"),
        (404, "The model `x` does not exist.", ["NotFoundError"], "model"),
        (400, "some/model is not a valid model ID", ["400"], "model"),
        (404, "Not Found", [], "model"),
    ],
)
def test_what_stops_everyone(status: int, message: str, names: list[str], cause: str) -> None:
    error = error_of(Problem(status, message, frozenset(names)))
    assert isinstance(error, HaltError) and error.cause == cause
    assert f"{status} {message}" in str(error)


@pytest.mark.parametrize(
    ("status", "message", "names", "reason"),
    [
        (400, "This model's maximum context length is 2048 tokens.", ["BadRequestError"], "prompt_too_long"),
        (400, "prompt is too long: 210000 tokens > 200000 maximum", [], "prompt_too_long"),
        (400, "The input token count (9) exceeds the maximum number", [], "prompt_too_long"),
        (429, "Request too large for gpt-4o: Limit 30000, Requested 40000", ["tokens"], "prompt_too_long"),
        (413, "", [], "prompt_too_long"),
        (403, "Your input was flagged: violence", [], "content_filter"),
        (400, "Output blocked by content filtering policy", [], "content_filter"),
        (400, "too bad", ["content_policy_violation"], "content_filter"),
        (422, "temperature: must be at most 1", [], "error"),
    ],
)
def test_what_only_this_request_gets(status: int, message: str, names: list[str], reason: str) -> None:
    error = error_of(Problem(status, message, frozenset(names)))
    assert isinstance(error, RequestError) and error.finish_reason == reason


@pytest.mark.parametrize(
    ("status", "fault"),
    [(408, "timeout"), (409, "server_error"), (429, "rate_limited"), (500, "server_error"), (503, "overloaded"),
     (504, "timeout"), (520, "server_error"), (529, "overloaded")],
)  # fmt: skip
def test_what_passes(status: int, fault: str) -> None:
    error = error_of(Problem(status, "the model flagged a billing problem", headers={"Retry-After": "3"}))
    assert isinstance(error, TransientError) and (error.fault, error.retry_after_s) == (fault, 3)


def test_a_long_message_is_cut_and_put_on_one_line() -> None:
    said = str(error_of(Problem(500, "line\n" * 1000)))
    assert "\n" not in said and len(said) < 520


def test_no_half_of_a_key_is_left_where_a_message_is_cut() -> None:
    key = "sk-0123456789abcdef"
    for before in range(470, 500):
        wire = Wire("openai", Key(key), lambda error, before=before: Problem(401, "x" * before + str(error)))
        with pytest.raises(HaltError) as caught, wire.errors():
            raise RuntimeError(f" {key} " * 3)
        assert "0123" not in str(caught.value)


def test_an_error_of_ours_is_none_of_the_connection() -> None:
    assert lost(KeyError("ours")) is None
    error = lost(ConnectionResetError())
    assert error is not None and error.fault == "connection"
    error = lost(TimeoutError())
    assert error is not None and error.fault == "timeout"


@pytest.mark.parametrize("data", ["", "[]", "null", '{"a": ', b"\xff\xfe", "<html>"])
def test_an_answer_must_be_an_object(data: str | bytes) -> None:
    with pytest.raises(TransientError) as caught:
        read_json(data)
    assert caught.value.fault == "garbled"


def in_seconds(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"retry-after": "20"}, 20, 20),
        ({"Retry-After": " 0.5 "}, 0.5, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "20"}, 1.5, 1.5),
        ({"retry-after": "999999999"}, 3600, 3600),
    ],
)
def test_retry_after_in_all_its_forms(headers: dict[str, str], least: float, most: float) -> None:
    wait_s = retry_after_s(headers)
    assert wait_s is not None and least <= wait_s <= most


@pytest.mark.parametrize(("seconds", "least", "most"), [(600, 500, 600), (-600, 0, 0)])
def test_retry_after_as_a_date(seconds: float, least: float, most: float) -> None:
    date = format_datetime(in_seconds(seconds), usegmt=True)  # here: tests may be collected an hour before they run
    wait_s = retry_after_s({"retry-after": date})
    assert wait_s is not None and least <= wait_s <= most


@pytest.mark.parametrize("value", ["", "soon", "-1", "nan", "inf", "12 parsecs"])
def test_a_retry_after_that_says_nothing(value: str) -> None:
    assert retry_after_s({"retry-after": value}) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("6m0s", 360), ("20ms", 0.02), ("1h2m3.5s", 3600), ("34.07s", 34.07), ("7", 7), ("", 0), ("x", 0)],
)
def test_resets_in_all_their_forms(text: str, seconds: float) -> None:
    assert wait(text) == pytest.approx(seconds)  # an hour is the longest


def test_the_longest_reset_of_what_is_used_up_counts() -> None:
    limits = [(f"left-{name}", f"reset-{name}") for name in "abc"]
    headers = {"Left-A": "0", "Reset-A": "3s", "left-b": "0", "reset-b": "5s", "left-c": "1", "reset-c": "90s"}
    assert pause_s(headers, limits) == 5
    assert pause_s({}, limits) == 0
    assert 50 < pause_s({"left-a": "0", "reset-a": in_seconds(60).isoformat()}, limits) <= 60
