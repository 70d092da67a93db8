"""What the three APIs' backends share: what is asked, how much room an answer has, and errors without the key."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

from btrm.teacher.backends.http_errors import Problem, error_of, lost
from btrm.teacher.base import Call, TeacherError, TransientError
from btrm.teacher.config import TeacherConfig
from btrm.teacher.estimate import most_answer
from btrm.teacher.keys import Key

_LOGGERS = ("httpx", "httpx2", "httpcore", "httpcore2", "anthropic", "openai", "google_genai", "google.auth")


class Wire:
    """Turns what an SDK raises into the teacher's errors, without the key; the SDKs' own logs are kept quiet."""

    def __init__(self, name: str, key: Key, problem_of: Callable[[Exception], Problem | None]) -> None:
        self._name = name
        self._key = key
        self._problem_of = problem_of
        for logger in _LOGGERS:  # at DEBUG they write whole requests
            logging.getLogger(logger).setLevel(logging.WARNING)

    @contextmanager
    def errors(self) -> Generator[None]:
        """Raise a TeacherError for whatever goes wrong between here and the API."""
        try:
            yield
        except TeacherError as error:
            failure = error
        except Exception as error:
            problem = self._problem_of(error)
            found = error_of(self._without_key(problem)) if problem else lost(error)
            if found is None:
                raise
            failure = found
        else:
            return
        failure.args = (self._key.redact(f"{self._name}: {failure}"),)
        raise failure from None

    def _without_key(self, problem: Problem) -> Problem:
        """Take the key out before a long message is cut: half of it would stay."""
        return replace(problem, message=self._key.redact(problem.message))


def most_tokens(config: TeacherConfig, call: Call) -> int:
    """Return the longest answer of a call in tokens, with its thinking."""
    return most_answer(call, config)


def api_seed(call: Call) -> int:
    """Return a call's seed as the APIs take it."""
    return call.seed % 2**31


def patience_s(config: TeacherConfig) -> float:
    """Return how long an SDK waits: the asker gives up before that, and knows whether an answer lies unread."""
    return 1.2 * config.timeout_s


def given(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a request's fields without those that nobody set: the API has defaults of its own."""
    return {name: value for name, value in fields.items() if value is not None}


def count(value: Any) -> int:
    """Return a number of tokens as an API gives it; 0, which says nothing, for what is no such number."""
    return value if type(value) is int and value >= 0 else 0


def section(value: Any) -> dict[str, Any]:
    """Return a part of an answer that may be missing; empty for what is none. An answer is not lost for its counts."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


@contextmanager
def readable() -> Generator[None]:
    """Raise TransientError where an answer is not built as the API builds them."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise TransientError(f"an answer of another shape ({error!r:.200})", "garbled") from None


def whole(body: dict[str, Any], ended: bool) -> dict[str, Any]:
    """Return a streamed answer that came to its end. Raises TransientError for one that was cut."""
    if not ended:
        raise TransientError("a stream that broke off", "connection")
    return body
