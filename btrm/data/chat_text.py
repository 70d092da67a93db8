"""Chat messages as one text, in the form that HH-RLHF's conversations have: `Human: …`, a blank line, `Assistant: …`.

A judge's prompt shows the context as text whatever model is asked, so that a set of messages, of strings and HH's own
conversations are all read alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

from btrm.config import nearest

SPEAKERS: dict[str, str] = {
    "user": "Human", "human": "Human", "prompter": "Human",
    "assistant": "Assistant", "gpt": "Assistant", "model": "Assistant", "bot": "Assistant",
    "system": "System", "developer": "System",
    "tool": "Tool", "function": "Tool",
}  # fmt: skip


class Turn(NamedTuple):
    """What one speaker (Human, Assistant, System or Tool) said, stripped."""

    speaker: str
    text: str


class ChatError(ValueError):
    """A value that is no conversation; says what it is instead. For a source: a malformed row."""


def read_chat(value: Any) -> tuple[Turn, ...]:
    """Return the turns of messages ({role, content}, or {from, value}); of a bare text, which a human said, if any.

    Content may be text, null (nothing said) or a list of text parts. Raises ChatError for anything else.
    """
    if isinstance(value, str):
        return (Turn("Human", value.strip()),) if value.strip() else ()
    if not isinstance(value, list):
        raise ChatError(f"expected text or a list of messages, got {value!r:.80}")
    return tuple(_turn(number, message) for number, message in enumerate(cast("list[Any]", value), 1))


def chat_text(turns: Iterable[Turn]) -> str:
    """Return the turns as one text; a system turn without text is left out."""
    kept = (turn for turn in turns if turn.text or turn.speaker != "System")
    return "\n\n".join(f"{turn.speaker}: {turn.text}".rstrip() for turn in kept)


def _turn(number: int, message: Any) -> Turn:
    if not isinstance(message, Mapping):
        raise ChatError(f"message {number}: expected an object with role and content, got {message!r:.80}")
    said = cast("Mapping[str, Any]", message)
    role = str(said.get("role", said.get("from")))
    if role not in SPEAKERS:
        raise ChatError(f"message {number}: no such role {role!r}{nearest(role, SPEAKERS)}")
    if "content" not in said and "value" not in said:
        raise ChatError(f"message {number}: no content; keys are {', '.join(map(str, said))}")
    return Turn(SPEAKERS[role], _content(number, said.get("content", said.get("value"))))


def _content(number: int, content: Any) -> str:
    if content is None or isinstance(content, str):
        return (content or "").strip()
    parts = cast("list[Any]", content) if isinstance(content, list) else [content]
    texts = [cast("Mapping[str, Any]", part).get("text") if isinstance(part, Mapping) else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise ChatError(f"message {number}: content: expected text, got {content!r:.80}")
    return "\n".join(cast("list[str]", texts)).strip()
