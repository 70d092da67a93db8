"""Expected scores: the mean of the scores that a model might write, instead of a few draws of them.

Every canonical answer `<s>NN</s>` is written with the model's own tokenizer; the answers of a scale form a tree of
tokens. The weight of a score is the product of the model's probabilities (temperature 1, no top-k, no top-p) of its
numeral's tokens and of what closes it, at those places of the tree where answers part. Whatever has no alternative in
the tree counts as certain: the `<s>` before, the `</s>` after. The weights' sum is the mass: how likely the model,
once it opens a tag, writes a score of the scale. The expected score is the mean under the weights divided by the mass.
The idea is G-Eval's (arXiv 2303.16634), here from exact probabilities instead of counted samples.

A prompt that asks for the score first needs one pass over the prompt. One that asks for reasoning first is answered as
always, with the same seeds, and the tree stands where the last score tag of that answer opens: the rest of the answer
is not read. An answer that opens no tag stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import cast

from btrm.config import ConfigError
from btrm.judges.base import MIN_MASS, Completion, Expectation, Judge, JudgeAnswer, JudgeRequest, too_long
from btrm.judges.engine import Engine, TokenEngine
from btrm.judges.opening import find_opening
from btrm.judges.score_tree import Logprobs, Query, ScoreTree, build_tree
from btrm.prompts import PromptSpec
from btrm.scores import score_tag

_NO_SCORE = "<s></s>"


def expected_judge(engine: Engine, prompt: PromptSpec, max_new_tokens: int, min_mass: float = MIN_MASS) -> Judge:
    """Return a judge of expected scores of the prompt's scale, by the model that an engine has selected.

    ConfigError where the engine cannot tell probabilities, or the tokenizer cannot tell two scores apart.
    """
    if not hasattr(engine, "node_logprobs"):
        raise ConfigError(
            f"{type(engine).__name__} tells no probabilities: an expected score needs transformers or vllm"
        )
    return ExpectedJudge(cast(TokenEngine, engine), prompt, max_new_tokens, min_mass)


@dataclass(frozen=True, slots=True)
class _Draft:
    """A sampled answer, what it says before its last tag, and what is asked there."""

    sampled: Completion
    before: str
    query: Query | None


@dataclass(slots=True)
class ExpectedJudge:
    """A judge on one engine and prompt."""

    engine: TokenEngine
    prompt: PromptSpec
    max_new_tokens: int
    min_mass: float
    _trees: dict[str, ScoreTree] = field(default_factory=dict[str, ScoreTree])

    def ask(self, requests: Sequence[JudgeRequest]) -> list[JudgeAnswer]:
        """Return one answer a request, in order."""
        prompts = self.engine.chat.encode(requests)
        if self.prompt.style == "reason_first":
            return self._after_reasoning(requests, prompts)
        return self._at_once(requests, prompts)

    def _at_once(self, requests: Sequence[JudgeRequest], prompts: Sequence[list[int]]) -> list[JudgeAnswer]:
        """Score from the prompts alone: nothing is generated, so an answer is one whatever n_samples says."""
        tree, chat = self._tree(""), self.engine.chat
        answers = [too_long(r.n_samples, len(p)) for r, p in zip(requests, prompts, strict=True)]
        fits = [i for i, prompt in enumerate(prompts) if chat.fits(prompt, tree.depth + 1)]
        logprobs = self.engine.node_logprobs([Query(prompts[i], tree) for i in fits])
        for i, logprob_E in zip(fits, logprobs, strict=True):
            completion = self._completion("", tree.expectation(logprob_E), Completion("", "stop", 0))
            answers[i] = JudgeAnswer((completion,) * requests[i].n_samples, len(prompts[i]))
        return answers

    def _after_reasoning(self, requests: Sequence[JudgeRequest], prompts: Sequence[list[int]]) -> list[JudgeAnswer]:
        """Sample answers, and take the score's distribution where the last tag of each opens."""
        chat = self.engine.chat
        answers = [too_long(r.n_samples, len(p)) for r, p in zip(requests, prompts, strict=True)]
        fits = [i for i, prompt in enumerate(prompts) if chat.fits(prompt, self.max_new_tokens)]
        sampled = self.engine.sample([requests[i] for i in fits], [prompts[i] for i in fits])
        drafts = [self._draft(prompts[i], ids) for i, samples in zip(fits, sampled, strict=True) for ids in samples]
        logprobs = iter(self.engine.node_logprobs([draft.query for draft in drafts if draft.query]))
        completions = (self._finish(draft, next(logprobs)) if draft.query else draft.sampled for draft in drafts)
        for i in fits:
            answers[i] = JudgeAnswer(tuple(islice(completions, requests[i].n_samples)), len(prompts[i]))
        return answers

    def _draft(self, prompt: list[int], token_ids: list[int]) -> _Draft:
        """Say what to ask about one sampled answer: nothing where it opens no tag, or leaves no room for one."""
        chat = self.engine.chat
        sampled, opening = chat.completion(token_ids), find_opening(chat, token_ids)
        if opening is None:
            return _Draft(sampled, "", None)
        query = Query(prompt + opening.tokens, self._tree(opening.lead))
        fits = chat.fits(query.prompt, query.tree.depth + 1)
        return _Draft(sampled, opening.before, query if fits else None)

    def _finish(self, draft: _Draft, logprob_E: Logprobs) -> Completion:
        assert draft.query is not None
        return self._completion(draft.before, draft.query.tree.expectation(logprob_E), draft.sampled)

    def _tree(self, lead: str) -> ScoreTree:
        if lead not in self._trees:
            self._trees[lead] = build_tree(self.engine.chat.encode_text, self.prompt.scale, lead)
        return self._trees[lead]

    def _completion(self, before: str, expectation: Expectation, sampled: Completion) -> Completion:
        """Write the most likely score behind the text before it; an empty tag where the mass is too small for one."""
        if expectation.mass < self.min_mass:
            return replace(sampled, text=before + _NO_SCORE, expectation=expectation)
        likely = max(expectation.weights, key=lambda numeral: expectation.weights[numeral])
        return replace(sampled, text=before + score_tag(float(likely), self.prompt.scale), expectation=expectation)
