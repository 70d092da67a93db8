"""From a reply to a score and an analysis for each of its call's responses.

A score counts only where its response's mark says so: in the tag with that mark, in the section with that mark, or in
the element with that id. No data holds its call's marks, so nothing that is quoted from it is ever read as a score.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any, cast

from btrm.scores import ENDS, Outcome, Scale, Score, read_numeral
from btrm.teacher.forms import PLACEHOLDER
from btrm.teacher.journal import Entry
from btrm.teacher.marks import writable

_UNPARSED = Score(None, Outcome.UNPARSED)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reply says about one item; `analysis` is its reasoning, as the teacher wrote it."""

    score: Score
    analysis: str


@dataclass(frozen=True, slots=True)
class _Found:
    """One place where an item's score stands: what is written there, and the reasoning that goes with it."""

    inside: str
    analysis: str


_UNREADABLE = _Found("", "")


def verdicts(entry: Entry, scale: Scale) -> list[Verdict]:
    """Return a verdict for each item of an answer, in their order. Never raises: a bad answer is an outcome.

    A finish reason in ENDS decides, whatever the text says. An item counts whose score stands in one place, or in
    several that agree; none is truncated where the answer ended because of its length, else unparsed, and so is a
    contradiction. What is wrong with one item leaves the others theirs.
    """
    if entry.finish_reason in ENDS:
        return [Verdict(Score(None, ENDS[entry.finish_reason]), "")] * len(entry.items)
    marks = [item.mark for item in entry.items]
    alone = entry.layout == "pointwise"
    found = _in_json(entry.text, marks, alone) if entry.form == "schema" else _in_tags(entry.text, marks, alone)
    none = Score(None, Outcome.TRUNCATED) if entry.finish_reason == "length" else _UNPARSED
    return [_verdict(found[mark], scale, none) for mark in marks]


def _verdict(places: Sequence[_Found], scale: Scale, none: Score) -> Verdict:
    if not places:
        return Verdict(none, "")
    scores = {read_numeral(place.inside, scale) for place in places}
    analysis = next((place.analysis for place in places if place.analysis.strip()), "")
    return Verdict(scores.pop() if len(scores) == 1 else _UNPARSED, writable(analysis.strip()))


_Places = defaultdict[str, list[_Found]]


# Any id is found and then compared: a pattern of each call's own would have to be compiled for each.
# Nothing in it is tried twice (`*+`), so that no text takes longer than its length.
_TAG = re.compile(r"<score\s++id\s*+=\s*+[\"']?([^<>\"'\s]*+)[\"']?\s*+>([^<]*+)</score\s*+>")
_HEADING = re.compile(r"^[ \t#*]*===[ \t]*([^\s=]+)[ \t]*===[ \t*\r]*$", re.MULTILINE)


def _in_tags(text: str, marks: Sequence[str], alone: bool) -> _Places:
    """Find each mark's tags; where there are several items, only in sections of that mark."""
    found: _Places = defaultdict(list)
    for mark, section in [(marks[0], text)] if alone else _sections(text, marks):
        begin = 0
        for tag in [tag for tag in _TAG.finditer(section) if tag[1] == mark]:
            if tag[2].strip() != PLACEHOLDER:
                found[mark].append(_Found(tag[2], section[begin : tag.start()]))
            begin = tag.end()
    return found


def _sections(text: str, marks: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (mark, text) for each section; only a line with a mark of this call begins one."""
    headings = [heading for heading in _HEADING.finditer(text) if heading[1] in marks]
    ends = [*(heading.start() for heading in headings[1:]), len(text)]
    for heading, end in zip(headings, ends, strict=False):
        yield heading[1], text[heading.end() : end]


class _Numeral(str):
    """A number as it stood in JSON: `1e2` and `85.50` are read by the same rules as in a tag."""

    __slots__ = ()


_Fields = dict[str, list[Any]]  # an object's fields, each with all the values that it was given
_VERDICT = frozenset({"analysis", "score"})
_FENCED = re.compile(r"\s*```(?:json)?[ \t]*\n(.*)\n[ \t]*```\s*\Z", re.DOTALL)


def _in_json(text: str, marks: Sequence[str], alone: bool) -> _Places:
    """Find each mark's scores; nothing is found in what is not JSON from end to end, or fenced JSON.

    A server that does not hold its model to the schema may let it quote a response without escapes, and what is quoted
    may then close an element and open another. The other has no mark: the one before it is not believed.
    """
    found: _Places = defaultdict(list)
    try:
        answer = _parsed(text)
    except (ValueError, RecursionError):
        return found
    if alone:
        found[marks[0]] += _scores(answer, _VERDICT)
        return found
    before = ""
    for element in _elements(answer):
        ids = _fields(element).get("id", [])
        if len(ids) == 1 and ids[0] in marks:
            before = str(ids[0])
            found[before] += _scores(element, _VERDICT | {"id"})
        else:
            found[before].append(_UNREADABLE)
    return found


def _parsed(text: str) -> Any:
    """Read JSON without losing anything. Raises ValueError or RecursionError."""
    fenced = _FENCED.match(text)
    return json.loads(
        fenced[1] if fenced else text,
        object_pairs_hook=_gather,
        parse_int=_Numeral,
        parse_float=_Numeral,
    )


def _gather(pairs: list[tuple[str, Any]]) -> _Fields:
    fields: _Fields = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return fields


def _fields(value: Any) -> _Fields:
    return cast("_Fields", value) if isinstance(value, dict) else {}


def _elements(answer: Any) -> list[Any]:
    fields = _fields(answer)
    if set(fields) != {"items"}:
        return []
    return [one for many in fields["items"] if isinstance(many, list) for one in cast("list[Any]", many)]


def _scores(value: Any, names: Set[str]) -> list[_Found]:
    """Return what an element says, if it has these fields and no others; a score is a number, or a string with one."""
    fields = _fields(value)
    texts = fields.get("analysis", [])
    if set(fields) != names or not all(type(text) is str for text in texts):
        return [_UNREADABLE]
    return [_Found(score, " ".join(texts)) if isinstance(score, str) else _UNREADABLE for score in fields["score"]]
