"""Guided decoding: an engine may only write answers that hold a score of the scale, where the prompt wants it."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol, runtime_checkable

from btrm.config import ConfigError
from btrm.judges.base import Judge, JudgeAnswer, JudgeRequest
from btrm.judges.engine import Engine
from btrm.judges.score_tree import scale_numerals
from btrm.prompts import PromptSpec
from btrm.scores import Outcome, parse_score

# Prose in which no tag can begin: whatever is not `<`, and `<` before anything but the s of a tag.
_PROSE = r"([^<]|<+[^<s])*"
_ANYTHING = r"[\s\S]*"


def answer_pattern(prompt: PromptSpec) -> str:
    r"""Return the regular expression of a prompt's answers: a tag with a numeral of the scale, prose where it belongs.

    The numerals are listed one by one: `\d{1,3}` would let a model write 393. Before a score that comes last, prose
    holds no other tag; after one that comes first, anything may stand.
    """
    numerals = "|".join(re.escape(numeral) for numeral in scale_numerals(prompt.scale))
    tag = f"<s>({numerals})</s>"
    return {"reason_first": _PROSE + tag, "score_first": tag + _ANYTHING, "score_only": tag}[prompt.style]


@runtime_checkable
class Guidable(Protocol):
    """An engine that can be held to a regular expression."""

    def guide(self, pattern: str | None) -> None:
        """Generate only what matches from now on; None: anything."""
        ...


@dataclass(frozen=True, slots=True)
class GuidedJudge:
    """A judge whose engine is held to a pattern while it answers, and free otherwise."""

    engine: Guidable
    judge: Judge
    pattern: str

    def ask(self, requests: Sequence[JudgeRequest]) -> list[JudgeAnswer]:
        """Return one answer a request, in order."""
        with self._held():
            return self.judge.ask(requests)

    @contextmanager
    def _held(self) -> Generator[None]:
        self.engine.guide(self.pattern)
        try:
            yield
        finally:
            self.engine.guide(None)


def guided_judge(engine: Engine, judge: Judge, prompt: PromptSpec) -> GuidedJudge:
    """Return a judge whose answers hold a score; ConfigError where the engine decodes freely only."""
    if not isinstance(engine, Guidable):
        raise ConfigError(f"{type(engine).__name__} cannot be guided: take engine vllm, or guided off")
    return GuidedJudge(engine, judge, answer_pattern(prompt))


@dataclass(frozen=True, slots=True)
class GuidedEffect:
    """The share of answers without a score, free and guided, over the same requests."""

    pairs: int
    answers: int
    unparsed_free: float
    unparsed_guided: float


def measure_guiding(judge: GuidedJudge, requests: Sequence[JudgeRequest], prompt: PromptSpec) -> dict[str, Any]:
    """Ask the same requests free and guided, and say how many answers hold no score: a GuidedEffect as a dict."""
    free, guided = _unparsed(judge.judge.ask(requests), prompt), _unparsed(judge.ask(requests), prompt)
    pairs = len({request.pair.label_id for request in requests})
    return asdict(GuidedEffect(pairs, len(free), sum(free) / len(free), sum(guided) / len(guided)))


def _unparsed(answers: Sequence[JudgeAnswer], prompt: PromptSpec) -> list[bool]:
    completions = [completion for answer in answers for completion in answer.completions]
    return [parse_score(c.text, prompt.parser, c.finish_reason).outcome is not Outcome.SCORED for c in completions]
