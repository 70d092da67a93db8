"""What btrm itself writes, read back as a preference set: pairs.parquet, and ms-swift's rows for a reward model.

ms-swift's form (its documentation, "Custom dataset", reward models; as of 4.6): `messages` that end in the preferred
reply, and `rejected_response`, a text or messages; or `rejected_messages`, the whole other conversation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

from btrm.data.fields import RowError, column, drop, fields, file_rows, one_of, read_each, text
from btrm.data.items import Item, Occurrences, Query, ordered
from btrm.data.reading import SourceRow
from btrm.data.turns import IncomparableError, compare
from btrm.records import PreferencePair, stable_hash

BTRM = "btrm"
SWIFT_RM = "swift_rm"


def btrm_pairs(query: Query) -> Iterator[Item]:
    """Yield the pairs of pairs.parquet files as they were written: ids, source and split are the file's own."""
    seen = Occurrences()

    def read(row: SourceRow) -> Iterator[Item]:
        pair = _written(row)
        if seen.count(stable_hash(pair.label_id)):
            raise RowError(f"'label_id': {pair.label_id} stands twice; it must tell labels apart")
        yield pair

    return read_each(file_rows(query, BTRM), read)


def swift_rm(query: Query) -> Iterator[Item]:
    """Yield the pairs of ms-swift's rows for a reward model."""
    seen = Occurrences()

    def read(row: SourceRow) -> Iterator[Item]:
        messages = column(row, "messages")
        try:
            found = compare(None, messages, _rejected(row, messages))
        except IncomparableError as error:
            yield drop(row, error.reason, str(error))
            return
        responses, preferred = ordered(found.chosen, found.rejected)
        yield seen.pair(found.context, responses, preferred, source=SWIFT_RM, split=query.split)

    return read_each(file_rows(query, SWIFT_RM), read)


def _rejected(row: SourceRow, messages: Any) -> Any:
    """Return the other conversation: given whole, or the same one up to its last question with another reply."""
    if fields(row).get("rejected_messages") is not None:
        return fields(row)["rejected_messages"]
    reply = column(row, "rejected_response")
    if not isinstance(messages, list) or not messages:
        raise RowError(f"'messages': expected a list of messages, got {messages!r:.80}")
    end = [{"role": "assistant", "content": reply}] if isinstance(reply, str) else reply
    if not isinstance(end, list):
        raise RowError(f"'rejected_response': expected text or messages, got {reply!r:.80}")
    return [*_up_to_question(cast("list[Any]", messages)), *cast("list[Any]", end)]


def _up_to_question(messages: list[Any]) -> list[Any]:
    """Return the messages without the assistant's at their end: ms-swift replaces all of those."""
    end = len(messages)
    while end and isinstance(messages[end - 1], dict) and messages[end - 1].get("role") == "assistant":
        end -= 1
    return messages[:end]


def _written(row: SourceRow) -> PreferencePair:
    side = None if column(row, "preferred") is None else one_of(row, "preferred", {0: 0, 1: 1})
    return PreferencePair(
        text(row, "pair_id"),
        text(row, "label_id"),
        text(row, "context"),
        (text(row, "response_0"), text(row, "response_1")),
        side,
        text(row, "source"),
        text(row, "split"),
        _meta(text(row, "meta")),
    )


def _meta(written: str) -> Mapping[str, Any]:
    try:
        meta = json.loads(written)
    except json.JSONDecodeError as error:
        raise RowError(f"'meta': not JSON: {error}") from None
    if not isinstance(meta, dict):
        raise RowError(f"'meta': expected a JSON object, got {written:.80}")
    return cast("dict[str, Any]", meta)
