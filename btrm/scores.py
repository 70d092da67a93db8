"""From a judge's text to a score with an outcome: nothing crashes and nothing is dropped.

A score stands in one tag, `<s>73</s>`. Scales are 1-5 with at most one decimal and the integers 0-100.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from btrm.edge_tags import edge_tags


class Outcome(StrEnum):
    """What became of one completion; `scored` alone has a value."""

    SCORED = "scored"
    UNPARSED = "unparsed"
    OUT_OF_RANGE = "out_of_range"
    TRUNCATED = "truncated"
    REFUSED = "refused"
    ERROR = "error"
    FILTERED = "filtered"


Position = Literal["first", "last"]


@dataclass(frozen=True, slots=True)
class Scale:
    """A score's range and the numerals that may write it."""

    name: str
    low: float
    high: float
    decimals: int

    def numeral(self, value: float) -> str:
        """Write `value` as this scale writes scores (73, 4.5)."""
        return f"{value:.{self.decimals}f}"


SCALES = {"score5": Scale("score5", 1.0, 5.0, 1), "score100": Scale("score100", 0.0, 100.0, 0)}


@dataclass(frozen=True, slots=True)
class Parser:
    """Reads the first or the last tag of a text, on one scale."""

    name: str
    scale: Scale
    position: Position


PARSERS = {
    f"{scale.name}_{position}": Parser(f"{scale.name}_{position}", scale, position)
    for scale in SCALES.values()
    for position in ("first", "last")
}


@dataclass(frozen=True, slots=True)
class Score:
    """A value where the outcome is `scored`, else None."""

    value: float | None
    outcome: Outcome


# Ends of an answer that are outcomes whatever the text says: the model declined, its provider withheld it, none came.
ENDS = {"refusal": Outcome.REFUSED, "content_filter": Outcome.FILTERED, "error": Outcome.ERROR}

# A tag is whatever stands between <s> and the next </s> without another <s>; the numeral is judged afterwards, so that
# `<s>high</s>` and `<s>85/100</s>` are seen as tags that hold no score, not overlooked in favour of another tag.
_TAG = re.compile(r"<s>([^<]*)</s>")
# Digits are ASCII digits: a score in other numerals is a parse failure, not a surprise.
_NUMERAL = re.compile(r"\s*(-?[0-9]{1,9})(?:\.([0-9]{1,9}))?\s*\Z")


def score_tag(value: float, scale: Scale) -> str:
    """Return the tag that a judge should write for `value`."""
    return f"<s>{scale.numeral(value)}</s>"


def parse_score(text: str, parser: Parser, finish_reason: str | None = None) -> Score:
    """Read one completion.

    A finish reason in ENDS decides, whatever the text says; a tag out of range, or with more decimals than the scale
    has, is out_of_range; a text without a tag that ended because of its length is truncated; else unparsed.
    """
    if finish_reason in ENDS:
        return Score(None, ENDS[finish_reason])
    tags = _TAG.findall(text)
    if not tags:
        return Score(None, Outcome.TRUNCATED if finish_reason == "length" else Outcome.UNPARSED)
    return read_numeral(tags[0] if parser.position == "first" else tags[-1], parser.scale)


def read_numeral(inside: str, scale: Scale) -> Score:
    """Read what stands where a score should stand: in a tag, or in a field of its own."""
    numeral = _NUMERAL.match(inside)
    if numeral is None:
        return Score(None, Outcome.UNPARSED)
    whole, decimals = numeral.groups()
    value = float(f"{whole}.{decimals or 0}")
    if len((decimals or "").rstrip("0")) > scale.decimals or not scale.low <= value <= scale.high:
        return Score(None, Outcome.OUT_OF_RANGE)
    return Score(value, Outcome.SCORED)


# A tag and what it leaves behind.
_ANY_TAG = re.compile(r"<s>[^<]*</s>|</?s>")


def without_tags(text: str) -> str:
    """Return a text that cannot be read as a score: an answer that is rebuilt has its tag exactly once."""
    while (cut := _ANY_TAG.sub("", text)) != text:  # `<<s>s>` would leave a tag behind
        text = cut
    return text


# The order of outcome codes in arrays.
OUTCOMES = tuple(Outcome)
_CODES = {outcome: code for code, outcome in enumerate(OUTCOMES)}


@dataclass(frozen=True, slots=True)
class ScoredTexts:
    """N texts read: `score_N` is NaN where there is no score, `outcome_N` indexes OUTCOMES."""

    score_N: NDArray[np.float64]
    outcome_N: NDArray[np.int8]


# Texts read at a time: their bytes and arrays stay in the processor's cache, and memory stays flat.
_BLOCK = 16384


def parse_texts(texts: Sequence[str], parser: Parser) -> ScoredTexts:
    """Read many texts at once; equal to parse_score, without finish reasons, on every one of them."""
    score_N, outcome_N = np.full(len(texts), np.nan), np.zeros(len(texts), np.int8)
    for start in range(0, len(texts), _BLOCK):
        block = slice(start, start + _BLOCK)
        score_N[block], outcome_N[block] = _parse_block(list(texts[block]), parser)
    return ScoredTexts(score_N, outcome_N)


def _parse_block(texts: list[str], parser: Parser) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    tags = edge_tags(texts, parser.position)
    read = [read_numeral(inside, parser.scale) for inside in tags.insides]
    read.append(Score(None, Outcome.UNPARSED))  # what index -1 means until it is read alone
    score_N = np.array([np.nan if s.value is None else s.value for s in read])[tags.index_N]
    outcome_N = np.array([_CODES[s.outcome] for s in read], np.int8)[tags.index_N]
    for n in np.flatnonzero(tags.index_N < 0).tolist():
        if "</s>" in texts[n]:
            score = parse_score(texts[n], parser)
            score_N[n] = np.nan if score.value is None else score.value
            outcome_N[n] = _CODES[score.outcome]
    return score_N, outcome_N
