"""From generated tokens to the text that is parsed, so that a score tag survives every tokenizer.

In Llama's and Mistral's tokenizers `<s>` and `</s>` are special tokens, and `</s>` is also what ends an answer:
skipping special tokens removes the tag, and cutting the end token removes its closing half.
"""

from __future__ import annotations

OPEN, CLOSE = "<s>", "</s>"


def close_tag(text: str, eos: str | None, finished: bool) -> str:
    """Give back the `</s>` that ended an answer as its end token, where a tag stands open.

    `finished` says that the model ended the answer itself; one cut by its length keeps its open tag.
    """
    if finished and eos == CLOSE and text.rfind(OPEN) > text.rfind(CLOSE):
        return text + CLOSE
    return text
