"""Calls as token ids, by a model's own tokenizer and chat template, and generated token ids as replies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast

from btrm.judges.base import Sampling
from btrm.judges.chat import Chat
from btrm.teacher.base import Call, FinishReason, Reply, Usage

_THOUGHT, _THOUGHT_ENDS = "<think>", "</think>"


class ChatCalls:
    """What one model is asked: `sampling.max_new_tokens` is what an answer about one response may take.

    `thinking_tokens` come before that; where they are 0, a template that knows thinking is told to leave it out.
    """

    def __init__(self, chat: Chat, sampling: Sampling, thinking_tokens: int) -> None:
        self._chat = chat
        self._sampling = sampling
        self._thinking_tokens = thinking_tokens

    def prompt(self, call: Call) -> list[int]:
        """Return a call's prompt as token ids, up to where the answer begins."""
        system, user = self._plain(call.system), self._plain(call.context + call.question)
        if system and not self._takes_system:
            system, user = "", f"{system}\n\n{user}"
        head = [{"role": "system", "content": system}] if system else []
        text = self._render([*head, {"role": "user", "content": user}])
        return cast("list[int]", self._chat.tokenizer(text, add_special_tokens=False)["input_ids"])

    def fits(self, prompt: Sequence[int], call: Call) -> bool:
        """Say whether a whole answer has room after the prompt."""
        return self._chat.fits(prompt, self._most(call))

    def parameters(self, call: Call) -> Any:
        """Return vLLM's parameters for a call; where it has a schema, nothing else can be generated."""
        from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

        return SamplingParams(
            temperature=self._sampling.temperature,
            top_p=self._sampling.top_p,
            max_tokens=self._most(call),
            seed=call.seed,
            stop_token_ids=sorted(self._chat.end_ids),
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            structured_outputs=None if call.schema is None else StructuredOutputsParams(json=_counted(call)),
        )

    def reply(self, token_ids: Sequence[int], prompt_tokens: int, cached: int | None) -> Reply:
        """Return what was generated, without its thinking; what no end token closes has ended because of its length."""
        end = self._chat.end(token_ids)
        text = self._chat.text(token_ids[:end])
        reason: FinishReason = "length" if end is None else "stop"
        usage = Usage(prompt_tokens - (cached or 0), len(token_ids), cached or 0)
        return Reply(self._answer(text), reason, usage, {"text": text})

    def _most(self, call: Call) -> int:
        return self._sampling.max_new_tokens * len(call.items) + self._thinking_tokens

    def _answer(self, text: str) -> str:
        thought, end, answer = text.partition(_THOUGHT_ENDS)
        return answer if end and (self._thinking_tokens or thought.lstrip().startswith(_THOUGHT)) else text

    def _render(self, messages: list[dict[str, str]]) -> str:
        return self._chat.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=self._thinking_tokens > 0
        )

    @cached_property
    def _takes_system(self) -> bool:
        from jinja2 import TemplateError

        try:
            self._render([{"role": "system", "content": "a"}, {"role": "user", "content": "b"}])
        except TemplateError:  # Gemma's template refuses such a message
            return False
        return True

    @cached_property
    def _tokens(self) -> re.Pattern[str]:
        tokenizer = self._chat.tokenizer
        names = sorted({*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}, key=len, reverse=True)
        return re.compile(
            "|".join(re.escape(name) for name in names if len(name) > 1 and not name.isspace()) or r"(?!)"
        )

    def _plain(self, text: str) -> str:
        """Break up what the tokenizer would read as a token of its own: with one, a response could end its turn.

        No part of a call needs any; the model reads `< |im_end|>`.
        """
        return self._tokens.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)


def _counted(call: Call) -> dict[str, Any]:
    """Return a call's schema with the number of its responses, which an API's schema leaves open."""
    assert call.schema is not None
    count = {"minItems": len(call.items), "maxItems": len(call.items)}
    properties = {
        name: {**value, **count} if value.get("type") == "array" else value
        for name, value in call.schema["properties"].items()
    }
    return {**call.schema, "properties": properties}
