"""What a teacher is: one call in, one reply out; and the three ways in which a call can fail."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

from btrm.config import ConfigError
from btrm.records import stable_hash

Layout = Literal["pointwise", "batched", "pairwise"]
Form = Literal["schema", "tags"]
# `error`: no answer after the last attempt, or a request that the API will never take.
FinishReason = Literal["stop", "length", "refusal", "content_filter", "prompt_too_long", "error"]


@dataclass(frozen=True, slots=True)
class Item:
    """One response that a call asks about. `mark` is its name in the call: nobody who wrote the response knows it.

    `shown_first` is None where a pair's other side is not in the same call.
    """

    label_id: str
    pair_id: str
    side: int
    mark: str
    shown_first: bool | None = None


RowKey = tuple[str, int, int]  # label_id, side, sample


@dataclass(frozen=True)
class Call:
    """What is asked and answered at once.

    The parts go in this order, so that calls about one pair share everything up to `question`: `system`, `context`
    (cacheable, empty where nothing is shared), `question`; what the user says is `context + question`. `schema` is the
    JSON schema of the answer where `form` is schema; it is the same for every call of a stage. `seed` is for APIs that
    take one. `responses` are the items' texts, for backends without a model.
    """

    items: tuple[Item, ...]
    sample: int
    layout: Layout
    form: Form
    system: str
    context: str
    question: str
    schema: Mapping[str, Any] | None
    seed: int
    responses: tuple[str, ...] = field(default=(), repr=False)

    @property
    def keys(self) -> tuple[RowKey, ...]:
        """The rows of judgements.parquet that the reply will fill."""
        return tuple((item.label_id, item.side, self.sample) for item in self.items)

    @cached_property
    def text_hash(self) -> str:
        """Digest of what is asked, whoever is asked."""
        return stable_hash(
            self.system, self.context, self.question, json.dumps(self.schema), str(self.sample), length=32
        )


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a call as the API counts them.

    `cached` and `cache_written` are not in `input`; thinking is in `output`.
    """

    input: int = 0
    output: int = 0
    cached: int = 0
    cache_written: int = 0

    @property
    def prompt(self) -> int:
        """All tokens that went in, however they were charged."""
        return self.input + self.cached + self.cache_written


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. `text` is the answer (JSON where the call's form is schema); `raw` is the API's own answer.

    `pause_s`: the API's rate headers say that nothing is left for so many seconds.
    """

    text: str
    finish_reason: FinishReason
    usage: Usage = Usage()
    raw: Mapping[str, Any] = field(default_factory=dict[str, Any])
    pause_s: float = 0.0


class Backend(Protocol):
    """Anything that answers calls, many at a time; a reply must not depend on which others are under way."""

    async def ask(self, call: Call) -> Reply:
        """Return the reply. Raises TransientError, RequestError or HaltError; never tries again by itself."""
        ...

    async def close(self) -> None:
        """Give connections and memory back."""
        ...


class TeacherError(Exception):
    """A call that was not answered. The message is for people and holds no key."""


# `unreachable`: nothing was sent. `connection`: it was lost after that.
Fault = Literal["rate_limited", "overloaded", "server_error", "timeout", "unreachable", "connection", "garbled"]


class TransientError(TeacherError):
    """Another attempt may be answered: 429, 529, another 5xx, no answer in time, a lost connection, a broken answer.

    `retry_after_s` is what the server asked for.
    """

    def __init__(self, message: str, fault: Fault, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.fault: Fault = fault
        self.retry_after_s = retry_after_s


class RequestError(TeacherError):
    """This very request will never be answered (400, too large); others may be."""

    def __init__(self, message: str, finish_reason: FinishReason = "error") -> None:
        super().__init__(message)
        self.finish_reason: FinishReason = finish_reason


HaltCause = Literal["auth", "quota", "model", "budget", "batch", "failing"]


class HaltError(TeacherError):
    """Nobody who asks so will be answered: a wrong key, no money, no such model, a lost batch, nothing but errors.

    Everyone stops, with this message.
    """

    def __init__(self, message: str, cause: HaltCause) -> None:
        super().__init__(message)
        self.cause: HaltCause = cause


class HaltedError(ConfigError):
    """The stage's own end after a HaltError; what is on disk stays, and a rerun goes on from there."""
