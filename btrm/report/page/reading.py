"""Pairs to read: texts folded and bounded, odd characters made visible, and the judge's answers under each side."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from btrm.report.page.values import minus
from btrm.report.report_input import Answer, WorstPair

_SHOWN = 900  # characters of a text that are read without a click
_LINES = 20  # at most
_KEPT = 6000  # characters that are read with one
_ANSWER = 400
_ANSWERS = 6  # of each side
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_HIDDEN = re.compile("[\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


@dataclass(frozen=True, slots=True)
class Prose:
    """A text in two parts: what is shown, what a click shows; `cut` tells what is not in the page."""

    head: str
    tail: str = ""
    more: str = ""
    cut: str = ""

    @property
    def short(self) -> bool:
        """Whether all of it is shown."""
        return not self.tail


@dataclass(frozen=True, slots=True)
class Told:
    """One answer of the judge."""

    facts: str
    text: Prose


@dataclass(frozen=True, slots=True)
class Side:
    """One response, what it was given, and by which answers."""

    title: str
    preferred: bool
    score: str
    response: Prose
    answers: list[Told]
    answers_title: str


@dataclass(frozen=True, slots=True)
class PairView:
    """A pair side by side; the preferred response comes first."""

    title: str
    facts: str
    context: Prose
    sides: list[Side]


@dataclass(frozen=True, slots=True)
class PairGroup:
    """Pairs with one kind of trouble."""

    title: str
    pairs: list[PairView]


def prose(text: str, shown: int = _SHOWN, kept: int = _KEPT, rest: str = "pairs.parquet") -> Prose:
    """Fold a text; control characters and invisible ones (which turn the writing's direction) become visible.

    The first `shown` characters, or `_LINES` lines, are open; what lies beyond `kept` is left in the file `rest`.
    """
    whole = visible(text)
    cut = f"{len(whole) - kept:,} more characters are in {rest}." if len(whole) > kept else ""
    whole = whole[:kept]
    place = _fold(whole, shown)
    if place is None:
        return Prose(whole or "(empty)", cut=cut)
    return Prose(whole[:place], whole[place:], f"{len(whole) - place:,} more characters", cut)


def _fold(text: str, shown: int) -> int | None:
    """Return where to fold: after a line or a word, not far before `shown`; None where nearly all would be shown."""
    lines = text.splitlines(keepends=True)
    if len(lines) > _LINES * 1.2:
        shown = min(shown, sum(map(len, lines[:_LINES])))
    elif len(text) <= shown * 1.2:
        return None
    return max(text.rfind(" ", shown - 80, shown), text.rfind("\n", shown - 80, shown)) + 1 or shown


def visible(text: str) -> str:
    """Return the text with control characters as pictures, and invisible ones by their code points."""
    pictured = _CONTROL.sub(
        lambda found: chr(0x2400 + ord(found[0])), text.replace("\r\n", "\n").replace("\r", "\u240d\n")
    )
    return _HIDDEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", pictured)


def reading(worst: Sequence[WorstPair]) -> list[PairGroup]:
    """Return the pairs by what is wrong with them."""
    titles = {
        "wrong": "Most confident, and wrong",
        "disagreement": "Loudest disagreement of the judge with itself",
    }
    groups: list[PairGroup] = []
    for trouble, title in titles.items():
        pairs = [pair for pair in worst if pair.trouble == trouble]
        if pairs:
            groups.append(PairGroup(title, [_view(place, pair) for place, pair in enumerate(pairs, 1)]))
    return groups


def _view(place: int, pair: WorstPair) -> PairView:
    margin = "no margin" if pair.margin is None else minus(f"margin {pair.margin:+.2f}")
    spread = "" if pair.spread is None or not math.isfinite(pair.spread) else f" ± {pair.spread:.2f} over its answers"
    where = " · ".join(part for part in (pair.checkpoint, pair.dataset, pair.source, pair.label_id) if part)
    sides = [_side(pair, side) for side in (pair.preferred, 1 - pair.preferred)]
    return PairView(f"{place}. {margin}{spread}", visible(where), prose(pair.context, 600), sides)


def _side(pair: WorstPair, side: int) -> Side:
    preferred = side == pair.preferred
    score = pair.scores[side]
    own = [answer for answer in pair.answers if answer.side == side]
    told = _telling(own)
    count = f"{len(told)} of {len(own)} answers" if len(told) < len(own) else f"{len(own)} answers"
    return Side(
        f"Response {side}, {'preferred by the label' if preferred else 'the other'}",
        preferred,
        "no score" if score is None else f"mean score {score:.2f}",
        prose(pair.responses[side]),
        [_told(answer) for answer in told],
        f"The judge: {'1 answer' if len(own) == 1 else count}",
    )


def _telling(answers: Sequence[Answer]) -> list[Answer]:
    """Choose what to read: answers without a score, then the lowest and the highest, from outside in."""
    unscored = [answer for answer in answers if answer.score is None][: _ANSWERS // 2]
    scored = sorted((a for a in answers if a.score is not None), key=lambda a: a.score or 0.0)
    left = _ANSWERS - len(unscored)
    if len(scored) > left:
        scored = scored[: left - left // 2] + scored[len(scored) - left // 2 :]
    return unscored + scored


def _told(answer: Answer) -> Told:
    score = answer.outcome.replace("_", " ") if answer.score is None else f"score {answer.score:g}"
    return Told(
        f"seed {answer.seed}, sample {answer.sample}: {score}",
        prose(answer.completion, _ANSWER, 2500, "judgements.parquet"),
    )
