"""From messages to token ids and back, with the model's own tokenizer and chat template: the same for each engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from btrm.config import ConfigError
from btrm.judges.base import Completion, JudgeRequest
from btrm.prompts import Message
from btrm.score_text import CLOSE, OPEN, close_tag


@dataclass(frozen=True, slots=True)
class Chat:
    """A tokenizer, the tokens that end an answer, and the longest sequence that the model takes."""

    tokenizer: Any
    end_ids: frozenset[int]
    hidden: frozenset[int]
    max_length: int

    @classmethod
    def open(cls, model: str, max_length: int) -> Chat:
        """Read the tokenizer of a model; raise ConfigError where it has no chat template."""
        from transformers import AutoConfig, AutoTokenizer

        tokenizer: Any = AutoTokenizer.from_pretrained(model)
        if not tokenizer.chat_template:
            raise ConfigError(f"{model}: its tokenizer has no chat template; take an instruction-tuned model")
        config: Any = AutoConfig.from_pretrained(model)
        end_ids = _end_ids(model, tokenizer, config)
        longest = getattr(config, "max_position_embeddings", None) or max_length
        return cls(tokenizer, end_ids, _hidden_ids(tokenizer), min(max_length, longest))

    def encode(self, requests: Sequence[JudgeRequest]) -> list[list[int]]:
        """Return each request's prompt as token ids, up to where the answer begins."""
        texts = [self.render(r.messages) for r in requests]
        return cast("list[list[int]]", self.tokenizer(texts, add_special_tokens=False)["input_ids"])

    def render(self, messages: Sequence[Message]) -> str:
        """Return messages as the model reads them; ConfigError where the template refuses them (a system prompt)."""
        from jinja2 import TemplateError

        try:
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except TemplateError as error:
            roles = ", ".join(message["role"] for message in messages)
            raise ConfigError(f"the chat template refuses messages of {roles}: {error}") from None

    @property
    def template(self) -> str:
        """The template's text."""
        return str(self.tokenizer.chat_template)

    def encode_text(self, text: str) -> list[int]:
        """Return a text's token ids and no others: nothing begins or ends it."""
        return cast("list[int]", self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def fits(self, prompt: Sequence[int], max_new_tokens: int) -> bool:
        """Say whether a whole answer has room after the prompt."""
        return len(prompt) + max_new_tokens <= self.max_length

    def completion(self, token_ids: Sequence[int]) -> Completion:
        """Return a generated sequence as text; one that no end token closes ended because of its length."""
        end = self.end(token_ids)
        ended_by = None if end is None else str(self.tokenizer.convert_ids_to_tokens(token_ids[end]))
        tokens = len(token_ids) if end is None else end + 1
        text = close_tag(self.text(token_ids[:end]), ended_by, end is not None)
        return Completion(text, "length" if end is None else "stop", tokens)

    def end(self, token_ids: Sequence[int]) -> int | None:
        """Return where an end token closes a generated sequence, None where its length did."""
        return next((i for i, token in enumerate(token_ids) if token in self.end_ids), None)

    def text(self, token_ids: Sequence[int]) -> str:
        """Return what tokens say, without those that are no text."""
        kept = [token for token in token_ids if token not in self.hidden]
        return str(self.tokenizer.decode(kept, skip_special_tokens=False, spaces_between_special_tokens=False))


def _hidden_ids(tokenizer: Any) -> frozenset[int]:
    """Return the special tokens that are no text: all but the two halves of a score tag."""
    ids: list[int] = tokenizer.all_special_ids
    return frozenset(i for i in ids if tokenizer.convert_ids_to_tokens(i) not in (OPEN, CLOSE))


def _end_ids(model: str, tokenizer: Any, config: Any) -> frozenset[int]:
    """Return the tokenizer's end token and those of the model's generation config (Qwen and Llama 3 have several)."""
    from transformers import GenerationConfig

    has_file = not Path(model).is_dir() or (Path(model) / "generation_config.json").exists()
    try:
        declared = GenerationConfig.from_pretrained(model).eos_token_id if has_file else None
    except OSError:  # a hub model without one
        declared = None
    declared = declared if declared is not None else getattr(config, "eos_token_id", None)
    ids = [declared] if isinstance(declared, int) else list(declared or [])
    return frozenset(i for i in [*ids, tokenizer.eos_token_id] if i is not None)
