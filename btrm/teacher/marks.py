"""Marks: names that nobody who wrote the data can know, and the delimiters that data stands between."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count

from btrm.records import stable_hash

_LENGTH = 8


def draw_marks(seed: int, names: Iterable[Sequence[str]], data: Sequence[str]) -> list[str]:
    """Return a mark for each name: all different, the same for the same request, and none occurs anywhere in `data`.

    Data may hold the very mark that would be drawn first (somebody knows the seed): then the next one is drawn.
    """
    text = "\n".join(data)  # a mark has no line break, so none can come about between two pieces
    marks: list[str] = []
    for name in names:
        drawn = (stable_hash(str(seed), *name, str(attempt), length=_LENGTH) for attempt in count())
        marks.append(next(mark for mark in drawn if mark not in text and mark not in marks))
    return marks


def delimited(kind: str, mark: str, data: str) -> str:
    """Return data between its delimiters, both of which name its mark."""
    return f'<{kind} id="{mark}">\n{writable(data)}\n</{kind} id="{mark}">'


def writable(text: str) -> str:
    """Return a text that UTF-8 can hold: a lone half of a surrogate pair becomes U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
