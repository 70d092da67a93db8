"""A chosen and a rejected conversation: what they share is the context, what differs at the end are the replies.

The prompt may stand apart (explicit) or at the start of both (implicit), as texts or as messages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from btrm.data.anthropic_hh import split_conversations
from btrm.data.chat_text import Turn, chat_text, read_chat
from btrm.data.fields import RowError

_REPLY = "\n\nAssistant:"


class Compared(NamedTuple):
    """Two replies to one context, stripped."""

    context: str
    chosen: str
    rejected: str


class IncomparableError(ValueError):
    """The conversations cannot be compared; `reason` names the count that the row goes into."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def compare(prompt: Any, chosen: Any, rejected: Any) -> Compared:
    """Return the context and both replies; `prompt` is None where it is implicit.

    Raises RowError or ChatError for what is no conversation, IncomparableError for what cannot be compared.
    """
    if isinstance(chosen, str) and isinstance(rejected, str):
        found = _texts(prompt, chosen, rejected)
    elif isinstance(chosen, list) and isinstance(rejected, list):
        found = _messages(prompt, chosen, rejected)
    else:
        kinds = f"{type(chosen).__name__} and {type(rejected).__name__}"
        raise RowError(f"chosen and rejected: expected two texts or two lists of messages, got {kinds}")
    if not found.chosen or not found.rejected:
        raise IncomparableError("empty_response", f"{'chosen' if not found.chosen else 'rejected'} is empty")
    if found.chosen == found.rejected:
        raise IncomparableError("identical_responses", "chosen equals rejected")
    if not found.context:
        raise IncomparableError("no_prompt", "there is no prompt, and chosen and rejected do not begin alike")
    return found


def _messages(prompt: Any, chosen: Any, rejected: Any) -> Compared:
    """Compare lists of messages, of which the last turns differ."""
    good, bad = read_chat(chosen), read_chat(rejected)
    start = max(0, min(_shared(good, bad), len(good) - 1, len(bad) - 1))
    context = chat_text((*_apart(prompt, good), *good[:start]))
    return Compared(context, _reply(good[start:]), _reply(bad[start:]))


def _apart(prompt: Any, turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """Return the turns of a prompt that a conversation lacks: it goes on with an answer, and does not repeat it."""
    if prompt is None or (turns and turns[0].speaker != "Assistant"):
        return ()
    asked = read_chat(prompt)
    return () if turns[: len(asked)] == asked else asked


def _reply(turns: tuple[Turn, ...]) -> str:
    if any(turn.speaker != "Assistant" for turn in turns):
        raise IncomparableError("different_prefix", "the two conversations differ before their last turn")
    return "\n\n".join(turn.text for turn in turns).strip()


def _texts(prompt: Any, chosen: str, rejected: str) -> Compared:
    if prompt is None:
        return _implicit(chosen, rejected)
    if isinstance(prompt, str) and _repeats(prompt, chosen) and _repeats(prompt, rejected):
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    context = prompt.strip().removesuffix(_REPLY.strip()).strip() if _is_hh(prompt) else chat_text(read_chat(prompt))
    return Compared(context, chosen.strip(), rejected.strip())


def _repeats(prompt: str, reply: str) -> bool:
    """Say whether a reply begins with its prompt, a whole one: `Hello! ...` only greets back."""
    rest = reply.removeprefix(prompt)
    return bool(prompt.strip()) and rest != reply and (prompt[-1].isspace() or rest[:1].isspace())


def _is_hh(prompt: Any) -> bool:
    return isinstance(prompt, str) and prompt.lstrip().startswith("Human:")


def _implicit(chosen: str, rejected: str) -> Compared:
    """Split texts at the end of what they share: before their last replies, else before the first differing word."""
    if _REPLY in chosen and _REPLY in rejected:
        parts = split_conversations(chosen, rejected)
        if parts is None:
            raise IncomparableError("different_prefix", "the two conversations differ before their last turn")
        return Compared(parts[0], parts[1], parts[2])
    if chosen == rejected:
        raise IncomparableError("identical_responses", "chosen equals rejected")
    words = re.match(r"(?s).*\s", chosen[: _shared(chosen, rejected)])
    start = words.end() if words else 0
    context = chosen[:start].strip()
    return Compared(chat_text(read_chat(context)) if context else "", chosen[start:].strip(), rejected[start:].strip())


def _shared(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Return how many items two sequences begin with alike."""
    differing = (index for index, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)
    return next(differing, min(len(first), len(second)))
