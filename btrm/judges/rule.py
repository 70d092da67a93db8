"""Judges that need no model: they write the answer that a rule gives."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from btrm.data.toy import toy_value
from btrm.judges.base import Completion, JudgeAnswer, JudgeRequest
from btrm.prompts import PromptSpec
from btrm.scores import Scale

_TOY_STEPS = 4  # a toy response has four words, so its value lies in -4..4


@dataclass(frozen=True, slots=True)
class RuleJudge:
    """Writes `rule(response, scale, random generator of this sample)` in the prompt's own form."""

    rule: Callable[[str, Scale, random.Random], float]
    prompt: PromptSpec

    def ask(self, requests: Sequence[JudgeRequest]) -> list[JudgeAnswer]:
        """Return one answer a request, in order."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: JudgeRequest) -> JudgeAnswer:
        response = request.pair.responses[request.side]
        texts = (self._text(response, random.Random(request.seed + j)) for j in range(request.n_samples))
        words = sum(len(message["content"].split()) for message in request.messages)
        return JudgeAnswer(tuple(Completion(text, "stop", len(text.split())) for text in texts), words)

    def _text(self, response: str, rng: random.Random) -> str:
        return self.prompt.target(self.rule(response, self.prompt.scale, rng))


def random_rule(response: str, scale: Scale, rng: random.Random) -> float:
    """Return a score drawn evenly from the scale: it teaches the format and nothing about preference."""
    del response
    steps = round((scale.high - scale.low) * 10**scale.decimals)
    return scale.low + rng.randint(0, steps) / 10**scale.decimals


def toy_rule(response: str, scale: Scale, rng: random.Random, noise: float = 0.0) -> float:
    """Return the toy task's true value on the scale, moved by up to `noise` of the scale's width either way."""
    share = (toy_value(response) + _TOY_STEPS) / (2 * _TOY_STEPS) + rng.uniform(-noise, noise)
    return scale.low + min(max(share, 0.0), 1.0) * (scale.high - scale.low)


def noisy_toy_rule(response: str, scale: Scale, rng: random.Random) -> float:
    """Return the toy task's value with noise of a quarter of the scale: a teacher that errs now and then."""
    return toy_rule(response, scale, rng, noise=0.25)


RULES: dict[str, Callable[[str, Scale, random.Random], float]] = {
    "rule_random": random_rule,
    "rule_toy": toy_rule,
    "rule_toy_noisy": noisy_toy_rule,
}
