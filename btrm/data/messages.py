"""A context's text as chat messages: what `chat_text` made of messages, taken apart again."""

from __future__ import annotations

import re

from btrm.prompts import Message

_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant|System|Tool):")
_ROLES = {"Human": "user", "Assistant": "assistant", "System": "system", "Tool": "tool"}


def messages_of(context: str) -> list[Message]:
    """Return the turns of a conversation, stripped; a text that is none is all said by the user.

    Read back with `chat_text`, a conversation is the same text but for blanks around its turns. A text that is none
    gains the mark `Human: `.
    """
    if _TURN.match(context) is None:
        return [{"role": "user", "content": context}]
    parts = _TURN.split(context)[1:]  # what stands before the first mark is empty
    turns = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": _ROLES[speaker], "content": text.strip()} for speaker, text in turns]
