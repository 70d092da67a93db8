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


class Outcome(StrEnum):
    """What became of one completion; `scored` alone has a value."""

    SCORED = "scored"
    UNPARSED = "unparsed"
    OUT_OF_RANGE = "out_of_range"
    TRUNCATED = "truncated"
    REFUSED = "refused"
    ERROR = "error"


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


# What the APIs call an answer that the model or its provider declined to give.
REFUSALS = frozenset({"refusal", "content_filter", "safety"})

# A tag is whatever stands between <s> and the next </s> without another <s>; the numeral is judged afterwards, so that
# `<s>high</s>` and `<s>85/100</s>` are seen as tags that hold no score, not overlooked in favour of another tag.
_TAG = re.compile(r"<s>([^<]*)</s>")
_NUMERAL = re.compile(r"\s*(-?\d{1,9})(?:\.(\d{1,9}))?\s*\Z")


def score_tag(value: float, scale: Scale) -> str:
    """Return the tag that a judge should write for `value`."""
    return f"<s>{scale.numeral(value)}</s>"


def parse_score(text: str, parser: Parser, finish_reason: str | None = None) -> Score:
    """Read one completion.

    A finish reason in REFUSALS is refused, whatever the text says; a tag out of range, or with more decimals than the
    scale has, is out_of_range; a text without a tag that ended because of its length is truncated; else unparsed.
    """
    if finish_reason in REFUSALS:
        return Score(None, Outcome.REFUSED)
    tags = _TAG.findall(text)
    if not tags:
        return Score(None, Outcome.TRUNCATED if finish_reason == "length" else Outcome.UNPARSED)
    numeral = _NUMERAL.match(tags[0] if parser.position == "first" else tags[-1])
    if numeral is None:
        return Score(None, Outcome.UNPARSED)
    whole, decimals = numeral.groups()
    value = float(f"{whole}.{decimals or 0}")
    scale = parser.scale
    if len((decimals or "").rstrip("0")) > scale.decimals or not scale.low <= value <= scale.high:
        return Score(None, Outcome.OUT_OF_RANGE)
    return Score(value, Outcome.SCORED)


def parse_scores(texts: Sequence[str], parser: Parser) -> NDArray[np.float64]:
    """Return score_N, NaN where a text has no valid score. Same rules as parse_score."""
    scores = (parse_score(text, parser).value for text in texts)
    return np.fromiter((np.nan if s is None else s for s in scores), np.float64, len(texts))
