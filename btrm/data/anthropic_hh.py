"""Anthropic's HH-RLHF: two whole conversations a row, of which the last assistant turn differs.

Hub: `Anthropic/hh-rlhf` (train, test). Files: the original .jsonl.gz with the keys `chosen` and `rejected`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from btrm.data.items import Dropped, Item, Occurrences, Query, malformed, ordered
from btrm.data.reading import SourceRow, expand_files, hub_rows, read_source_rows
from btrm.hub import HubItem

SOURCE = "anthropic_hh"
HUB = HubItem("dataset", "Anthropic/hh-rlhf", files=("*train.jsonl.gz", "*test.jsonl.gz", "README.md"))
SPLITS = ("train", "test")
# Looser than the mark of a turn: some rows run several turns together as "...  Human: ...  Assistant: ...".
_HUMAN = re.compile(r"\bHuman:")
_ASSISTANT = "\n\nAssistant:"


def anthropic_hh(query: Query) -> Iterator[Item]:
    """Yield the pairs and drops of a split, in the order of the source."""
    rows = read_source_rows(expand_files(query.data_files)) if query.data_files else hub_rows(HUB, None, query.split)
    seen = Occurrences()
    for row in rows:
        yield _pair(row, query.split, seen)


def _pair(row: SourceRow, split: str, seen: Occurrences) -> Item:
    if row.value is None:
        return malformed(row, row.problem)
    chosen, rejected = row.value.get("chosen"), row.value.get("rejected")
    for key, text in (("chosen", chosen), ("rejected", rejected)):
        if not isinstance(text, str):
            return malformed(
                row, f"{key!r}: expected text, got {text!r:.80}; keys are {', '.join(map(str, row.value))}"
            )
        if _ASSISTANT not in text:
            return malformed(row, f"{key!r} holds no assistant turn ({_ASSISTANT!r})")
    assert isinstance(chosen, str) and isinstance(rejected, str)
    parts = split_conversations(chosen, rejected)
    if parts is None:
        return Dropped(row.where, "different_prefix", "the two conversations differ before their last turn", row.value)
    context, good, bad, joined = parts
    if not good or not bad:
        which = "chosen" if not good else "rejected"
        return Dropped(row.where, "empty_response", f"{which} is empty", row.value)
    if good == bad:
        return Dropped(row.where, "identical_responses", "chosen equals rejected", row.value)
    responses, preferred = ordered(good, bad)
    return seen.pair(
        context, responses, preferred, source=SOURCE, split=split, meta=_repairs(context, responses, joined)
    )


def _repairs(context: str, responses: tuple[str, str], joined: bool) -> dict[str, str]:
    """Name what a split by searching for the reply, or for the last mark alone, would have got wrong here."""
    if joined:
        return {"repaired": "assistant_turns_joined"}
    earlier = (turn.lstrip() for turn in f"\n\n{context}".split(_ASSISTANT)[1:])
    suspects = [turn for turn in earlier if turn.startswith(responses)]  # quick, and nearly always empty
    repeats = any(turn.partition("\n\nHuman:")[0].rstrip() in responses for turn in suspects)
    return {"repaired": "reply_equals_earlier_turn"} if repeats else {}


def split_conversations(chosen: str, rejected: str) -> tuple[str, str, str, bool] | None:
    """Return (context, chosen reply, rejected reply, repaired), stripped; None where the contexts differ.

    The split goes by position, never by searching for the reply's text: an earlier turn may be equal to the last one.
    Where a reply itself holds an assistant mark (two assistant turns in a row), the split goes back to the last mark
    up to which both agree, if no human speaks after it on either side.
    """
    at_chosen, at_rejected = chosen.rfind(_ASSISTANT), rejected.rfind(_ASSISTANT)
    repaired = chosen[:at_chosen] != rejected[:at_rejected]
    at = _last_common_mark(chosen, rejected) if repaired else at_chosen
    if at is None:
        return None
    start = at + len(_ASSISTANT)
    return chosen[:at].strip(), chosen[start:].strip(), rejected[start:].strip(), repaired


def _last_common_mark(chosen: str, rejected: str) -> int | None:
    at = min(chosen.rfind(_ASSISTANT), rejected.rfind(_ASSISTANT))
    while at >= 0 and chosen[: at + len(_ASSISTANT)] != rejected[: at + len(_ASSISTANT)]:
        at = chosen.rfind(_ASSISTANT, 0, at)
    if at < 0 or _HUMAN.search(chosen, at) or _HUMAN.search(rejected, at):
        return None
    return at
