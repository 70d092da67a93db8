"""Score tags that stand at the edge of a text, found in many texts at once.

Nearly every completion ends with its tag, or starts with it where the prompt asks for the score first. Those are read
here by a few array operations on the UTF-8 bytes; all others are left to the caller, one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from btrm.scores import Position

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

_OPEN, _CLOSE = (np.uint64(int.from_bytes(tag, "little")) for tag in (b"<s>", b"</s>"))
# Insides up to this length (100, 73, 4.5) fit in one 8-byte word together with either half of the tag.
_LONGEST = 4
# _LOW[n] keeps the n first bytes of a little-endian word.
_LOW = [np.uint64((1 << 8 * n) - 1) for n in range(_LONGEST + 1)]
_SPAN = 12


@dataclass(frozen=True, slots=True)
class EdgeTags:
    """`index_N` points into `insides`, the distinct tag contents; -1: no such tag at the edge, read that text alone."""

    index_N: Ints
    insides: list[str]


def edge_tags(texts: Sequence[str], position: Position) -> EdgeTags:
    """Find tags of 1 to 4 bytes that end (`last`) or start (`first`) a text; exact wherever the index is not -1.

    A lone surrogate, which UTF-8 cannot hold, leaves all texts to the caller.
    """
    import pyarrow as pa

    none = EdgeTags(np.full(len(texts), -1), [])
    try:
        encoded: Any = pa.array(texts, pa.large_string())
    except UnicodeEncodeError:
        return none
    _, offsets, data = encoded.buffers()
    edge_N = np.frombuffer(offsets, np.int64, len(texts) + 1)
    if edge_N[-1] < _SPAN:
        return none
    find = _keys_at_end if position == "last" else _keys_at_start
    return _distinct(find(np.frombuffer(data, np.uint8, edge_N[-1]), edge_N[:-1], edge_N[1:]))


def _keys_at_end(data: NDArray[np.uint8], start_N: Ints, end_N: Ints) -> Words:
    """Return the bytes in the tag that ends each text as one little-endian word, 0 = none."""
    word_N = _words(data, end_N - 12, "<u8")  # holds `<s>` and the inside: ?<s>4.55, ??<s>100, ???<s>73, ????<s>7
    inside_N = word_N >> np.uint64(32)
    closed = _words(data, end_N - 4, "<u4") == _CLOSE
    length_N = end_N - start_N
    key_N = np.zeros_like(word_N)
    for length in range(_LONGEST, 0, -1):  # the nearest <s> is written last and wins
        opened = (word_N >> np.uint64(8 * (5 - length))) & _LOW[3] == _OPEN
        inside = inside_N >> np.uint64(8 * (_LONGEST - length))
        key_N = np.where(opened & (length_N >= length + 7), inside, key_N)
    # A NUL at the end would be lost in the key; words of the first 12 bytes are not whole: read those texts alone.
    return np.where(closed & (inside_N >> np.uint64(24) > 0) & (end_N >= _SPAN), key_N, 0)


def _keys_at_start(data: NDArray[np.uint8], start_N: Ints, end_N: Ints) -> Words:
    """Return the bytes in the tag that starts each text as one little-endian word, 0 = none."""
    word_N = _words(data, start_N + 3, "<u8")  # holds the inside and `</s>`: 4.55</s>, 100</s>?, 73</s>??, 7</s>???
    opened = _words(data, start_N, "<u4") & _LOW[3] == _OPEN
    length_N = end_N - start_N
    key_N = np.zeros_like(word_N)
    for length in range(_LONGEST, 0, -1):  # the nearest </s> is written last and wins
        closed = (word_N >> np.uint64(8 * length)) & _LOW[4] == _CLOSE
        inside = word_N & _LOW[length]
        whole = inside >> np.uint64(8 * (length - 1)) > 0  # a NUL at the end would be lost in the key
        key_N = np.where(closed & (length_N >= length + 7), np.where(whole, inside, 0), key_N)
    return np.where(opened & (start_N + 11 <= len(data)), key_N, 0)


def _words(data: NDArray[np.uint8], at_N: Ints, kind: Literal["<u4", "<u8"]) -> Words:
    """Return the word that starts at each byte; places outside, which the callers discard, give any word."""
    size = int(kind[-1])
    every = np.ndarray((len(data) - size + 1,), kind, data, strides=(1,))
    return every[np.clip(at_N, 0, len(every) - 1)].astype(np.uint64, copy=False)


def _distinct(key_N: Words) -> EdgeTags:
    """Index the distinct words; those that hold no tag, or another `<`, get -1."""
    import pyarrow as pa

    encoded: Any = pa.array(key_N).dictionary_encode()
    insides: list[str] = []
    index: list[int] = []
    for key in encoded.dictionary.to_pylist():
        inside = key.to_bytes(_LONGEST, "little").rstrip(b"\0")
        known = inside and b"<" not in inside
        index.append(len(insides) if known else -1)
        insides.extend([inside.decode()] if known else [])
    return EdgeTags(np.array(index)[encoded.indices.to_numpy()], insides)
