"""How many tokens a text has, without a tokenizer: counted by kind of character.

No two models cut text alike, so both figures are rules of thumb: `typical` is about what byte-pair encodings of
100,000 to 200,000 tokens make of prose, `most` is meant to hold for dense text (code, tables, rare scripts) too.

| characters                           | typical tokens each | at most |
|---|---|---|
| ASCII letters and spaces             | 1/4                 | 1/3     |
| other ASCII: digits, marks, newlines | 1/2                 | 1       |
| Latin, Cyrillic, Arabic, Indic …     | 1/2                 | 1       |
| CJK and Hangul                       | 0.8                 | 1.5     |
| beyond U+FFFF: emoji, rare ideograms | 2                   | 4       |
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_TYPICAL = np.array([0.25, 0.5, 0.5, 0.8, 2.0])
_MOST = np.array([1 / 3, 1.0, 1.0, 1.5, 4.0])
_ASCII_END, _CJK, _ASTRAL = 0x80, 0x2E80, 0x10000
_LETTER = np.zeros(_ASCII_END, np.bool_)
_LETTER[[ord(letter) for letter in " abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"]] = True


def tokens_of(text: str) -> int:
    """Return about the largest number of tokens that a text can have, for what is reserved before a call."""
    return math.ceil(float(_kinds(text) @ _MOST))


def typical_tokens(text: str) -> float:
    """Return about how many tokens a text has, for an estimate."""
    return float(_kinds(text) @ _TYPICAL)


def _kinds(text: str) -> NDArray[np.int64]:
    """Count the characters of each row of the table above."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    plain = codes[codes < _ASCII_END]
    letters = int(np.count_nonzero(_LETTER[plain]))
    cjk = int(np.count_nonzero(codes >= _CJK))
    astral = int(np.count_nonzero(codes >= _ASTRAL))
    return np.array([letters, len(plain) - letters, len(codes) - len(plain) - cjk, cjk - astral, astral])
