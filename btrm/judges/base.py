"""What a judge is: requests in, completions out, one answer for each request and in their order."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from btrm.prompts import Message, PromptSpec
from btrm.records import PreferencePair, stable_hash

FinishReason = Literal["stop", "length", "prompt_too_long"]
MAX_SAMPLES = 1024
# Where less than half of what a model might write is a score, a mean of scores is that of a minority of its answers,
# and most samples would be unparsed.
MIN_MASS = 0.5


@dataclass(frozen=True, slots=True)
class JudgeRequest:
    """`n_samples` answers about one side of one pair; sample j is drawn with `seed + j`."""

    pair: PreferencePair
    side: int
    messages: list[Message]
    n_samples: int
    seed: int


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a model would write as the score, instead of one draw of it.

    `weights` maps each numeral of the scale that has any to its probability among them (they sum to 1); `mass` is how
    much of the model's probability lies on numerals of the scale at all.
    """

    value: float
    weights: Mapping[str, float]
    mass: float


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled text. `tokens` counts what was generated, the end token included.

    With an `expectation`, the text is what stands before the score and the most likely score.
    """

    text: str
    finish_reason: FinishReason
    tokens: int
    expectation: Expectation | None = None


@dataclass(frozen=True, slots=True)
class JudgeAnswer:
    """The completions of one request, in the order of their samples."""

    completions: tuple[Completion, ...]
    prompt_tokens: int


class Judge(Protocol):
    """Anything that answers requests; an answer must not depend on which others stand beside it."""

    def ask(self, requests: Sequence[JudgeRequest]) -> list[JudgeAnswer]:
        """Return one answer a request, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are drawn. Temperature 0 is greedy."""

    temperature: float
    top_p: float
    top_k: int
    max_new_tokens: int


def request_seed(cell_seed: int, label_id: str, side: int, n_samples: int) -> int:
    """Return a request's seed, from what it asks about and never from its place: order and resume change nothing.

    Sample j is drawn with seed + j. Seeds are below 2**62 and multiples of n_samples, rounded up to a power of two, so
    samples of different requests share one only where the hashes collide, which at 62 bits they do not. An engine
    that keeps the low 32 bits alone (torch's generator on CPU, under vllm) sees r requests of k samples meet about
    r**2 * k / 2**33 times: 0.03 for 12,000 requests of two samples.
    """
    digest = hashlib.sha256(f"{cell_seed}/{side}/{label_id}".encode()).digest()
    spacing = 1 << (n_samples - 1).bit_length()
    return int.from_bytes(digest[:8], "big") % 2**62 // spacing * spacing


def make_request(pair: PreferencePair, side: int, prompt: PromptSpec, n_samples: int, cell_seed: int) -> JudgeRequest:
    """Return the request for one side of a pair.

    Its seed comes from what is judged: a response that stands in several pairs of one context (a benchmark's group,
    several people's labels) is one question, and has one answer wherever it is asked.
    """
    messages = prompt.messages(pair.context, pair.responses[side])
    what = stable_hash(pair.context, pair.responses[side])
    return JudgeRequest(pair, side, messages, n_samples, request_seed(cell_seed, what, 0, n_samples))


def too_long(n_samples: int, prompt_tokens: int) -> JudgeAnswer:
    """Return the answer to a prompt that leaves no room: an outcome like any other, not a crash and not a drop."""
    return JudgeAnswer((Completion("", "prompt_too_long", 0),) * n_samples, prompt_tokens)
