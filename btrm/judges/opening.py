"""Where the score of an answer begins, among the tokens that a model wrote."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from btrm.judges.chat import Chat
from btrm.score_text import OPEN

_WHOLE_TAG = re.compile(r"<s>[^<]*</s>")


@dataclass(frozen=True, slots=True)
class Opening:
    """The tokens that end before a score tag, all the text before the tag, and what of it they leave out.

    `lead` is not empty where a token holds text on both sides of the tag's first letter (`.<`): it is written again,
    together with the tag.
    """

    tokens: list[int]
    before: str
    lead: str


def find_opening(chat: Chat, token_ids: Sequence[int]) -> Opening | None:
    """Find where the last score tag of a generated sequence opens: the last whole tag, else one that was cut short."""
    ids = list(token_ids[: chat.end(token_ids)])
    text = chat.completion(token_ids).text
    whole = [match.start() for match in _WHOLE_TAG.finditer(text)]
    at = whole[-1] if whole else text.rfind(OPEN)
    if at < 0:
        return None
    kept, said = _longest_within(chat, ids, text[:at])
    return Opening(ids[:kept], text[:at], text[len(said) : at])


def _longest_within(chat: Chat, ids: Sequence[int], before: str) -> tuple[int, str]:
    """Return how many tokens say a beginning of `before`, as many as do, and what they say.

    A token more says more, so halving finds the place; half a letter, which decodes to something else, is stepped over.
    """
    low, high = 0, len(ids)
    while low < high:
        middle = (low + high + 1) // 2
        if len(chat.text(ids[:middle])) <= len(before):
            low = middle
        else:
            high = middle - 1
    while not before.startswith(said := chat.text(ids[:low])):
        low -= 1
    return low, said
