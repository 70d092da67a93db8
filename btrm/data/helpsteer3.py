"""HelpSteer3-Preference: two responses to a conversation and how much better people found the second, -3 to 3.

Wang et al., "HelpSteer3-Preference" (arXiv 2505.11475). Hub: `nvidia/HelpSteer3`, configuration `preference` (train,
validation); files: its `preference/*.jsonl.gz`. A negative number is for the first response, 0 is a tie.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from btrm.data.fields import RowError, asked, column, drop, fields, one_of, read_each, rows_of, text
from btrm.data.groups import choice_of
from btrm.data.items import Item, Occurrences, Query
from btrm.data.reading import SourceRow
from btrm.hub import HubItem

SOURCE = "helpsteer3"
HUB = HubItem("dataset", "nvidia/HelpSteer3", files=("preference/*", "README.md"))
SPLITS = ("train", "validation")
_SIDES = {-3: 0, -2: 0, -1: 0, 0: None, 1: 1, 2: 1, 3: 1}
_STRENGTHS = {number: abs(number) for number in _SIDES}


def helpsteer3(query: Query) -> Iterator[Item]:
    """Yield the pairs and drops; option `min_strength` (1, 2, 3) makes weaker preferences ties."""
    least = choice_of(query, SOURCE, "min_strength", "1", ("1", "2", "3"))
    seen = Occurrences()
    rows = rows_of(query, HUB, "preference", query.split)
    return read_each(rows, lambda row: [_pair(row, int(least), query.split, seen)])


def _pair(row: SourceRow, least: int, split: str, seen: Occurrences) -> Item:
    side, strength = (one_of(row, "overall_preference", valid) for valid in (_SIDES, _STRENGTHS))
    context = asked(column(row, "context"))
    responses = (text(row, "response1").strip(), text(row, "response2").strip())
    if not context or not all(responses):
        return drop(row, "empty_text", "the context or a response is empty")
    if responses[0] == responses[1]:
        return drop(row, "identical_responses", "the two responses are equal")
    meta = {"subset": str(fields(row).get("domain") or ""), "language": fields(row).get("language")}
    meta |= {"strength": strength, "individual": _individual(row)}
    preferred = side if strength >= least else None
    return seen.pair(context, responses, preferred, source=SOURCE, split=split, meta=meta)


def _individual(row: SourceRow) -> list[Any]:
    """Return the annotators' own numbers; their reasons stay in the source."""
    said = fields(row).get("individual_preference") or []
    if not isinstance(said, list):
        raise RowError(f"'individual_preference': expected a list, got {said!r:.80}")
    return [cast("dict[str, Any]", one).get("score") for one in cast("list[Any]", said) if isinstance(one, dict)]
