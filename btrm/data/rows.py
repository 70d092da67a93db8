"""Pointwise rows: a pair becomes two rows, side 0 then side 1, and a rows file is checked before it is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from btrm.config import ConfigError
from btrm.data.reading import SourceRow, read_source_rows
from btrm.prompts import PromptSpec
from btrm.records import PointwiseRow, PreferencePair

KEYS = ("messages", "pair_id", "label_id", "side", "preferred_side")
_MOST_PROBLEMS = 20


def row_meta(pair: PreferencePair) -> dict[str, Any]:
    """Return what --add-meta adds to a row: source, split and the pair's own metadata, never a row's own key."""
    return {"source": pair.source, "split": pair.split, **{k: v for k, v in pair.meta.items() if k not in KEYS}}


class RowEncoder:
    """Writes a pair's two rows as JSON lines (UTF-8), escaping each text once.

    JSON escapes character by character, so the escaped prompt is the concatenation of its escaped parts: the template
    is escaped once for all pairs, the context once for both sides. The lines read back as PointwiseRow.to_json.
    """

    def __init__(self, prompt: PromptSpec, add_meta: bool = False) -> None:
        head, tail = prompt.template.split("{response}")
        system = orjson.dumps({"role": "system", "content": prompt.system}) + b"," if prompt.system else b""
        self._head = [_escape(part) for part in head.split("{context}")]
        self._head[0] = b'{"messages":[%b{"role":"user","content":"%b' % (system, self._head[0])
        self._tail = _escape(tail) + b'"}],'
        self._add_meta = add_meta

    def lines(self, pair: PreferencePair) -> bytes:
        """Return the two lines, each ending in a newline; a tie has none."""
        if pair.preferred is None:
            return b""
        head = _escape(pair.context).join(self._head)
        ids = orjson.dumps({"pair_id": pair.pair_id, "label_id": pair.label_id})[1:-1]
        meta = b"," + orjson.dumps(row_meta(pair))[1:-1] if self._add_meta else b""
        end = b',"preferred_side":%d%b}\n' % (pair.preferred, meta)
        first, second = (_escape(response) for response in pair.responses)
        tail = self._tail + ids
        return b"".join((head, first, tail, b',"side":0', end, head, second, tail, b',"side":1', end))


def _escape(text: str) -> bytes:
    return orjson.dumps(text)[1:-1]


def read_rows(path: Path) -> Iterator[PointwiseRow]:
    """Yield the rows of a checked rows file; other columns become metadata. Raises as validate_rows does."""
    validate_rows(path)
    for source in read_source_rows((path,)):
        row = source.value or {}
        meta = {key: value for key, value in row.items() if key not in KEYS}
        yield PointwiseRow(**{key: row[key] for key in KEYS}, meta=meta)


def validate_rows(path: Path) -> int:
    """Return the number of pairs in a rows file; raise ConfigError that names every bad line (up to 20).

    A rows file is pairs of lines, side 0 then side 1 of one label. Refused: a lone side, a row key (label_id, side)
    that stands twice, sides that disagree on preferred_side or pair_id, missing or impossible values.
    """
    check = _RowCheck()
    for row in read_source_rows((path,)):
        check.add(row)
        if len(check.problems) >= _MOST_PROBLEMS:
            break
    check.end()
    if check.problems:
        raise ConfigError("\n".join(check.problems[:_MOST_PROBLEMS]))
    if not check.pairs:
        raise ConfigError(f"{path}: holds no rows")
    return check.pairs


class _RowCheck:
    """Takes the rows of a file one after another and keeps what is wrong with them."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.pairs = 0
        self._first: dict[str, str] = {}  # where a label_id stood first
        self._held: Mapping[str, Any] | None = None  # a side 0 that waits for its side 1
        self._held_at = ""

    def add(self, source: SourceRow) -> None:
        row, where = source.value, source.where
        problem = source.problem if row is None else _row_problem(row)
        if row is None or problem:
            self.problems.append(f"{where}: {problem}")
        elif self._held is not None and self._held["label_id"] == row["label_id"] and row["side"] == 1:
            self._close(self._held, row, where)
        else:
            self.end()
            self._open(row, where)

    def end(self) -> None:
        """Say that no partner comes for the row that is held."""
        if self._held is not None:
            self.problems.append(f"{self._held_at}: {_lone(self._held)}")
        self._held = None

    def _open(self, row: Mapping[str, Any], where: str) -> None:
        first = self._first.setdefault(row["label_id"], where)
        if first is not where:
            key = f"(label_id {row['label_id']}, side {row['side']})"
            self.problems.append(f"{where}: row key {key} again; this label_id stands first at {first}")
        elif row["side"] == 1:
            self.problems.append(f"{where}: {_lone(row)}")
        else:
            self._held, self._held_at = row, where

    def _close(self, first: Mapping[str, Any], second: Mapping[str, Any], where: str) -> None:
        for key in ("preferred_side", "pair_id"):
            if first[key] != second[key]:
                values = f"{first[key]!r} at {self._held_at} and {second[key]!r} here"
                self.problems.append(f"{where}: label_id {first['label_id']}: sides disagree on {key}: {values}")
        self.pairs += 1
        self._held = None


def _lone(row: Mapping[str, Any]) -> str:
    other = "side 1 must follow" if row["side"] == 0 else "side 0 must stand before it"
    return f"lone side: label_id {row['label_id']} side {row['side']}; its {other}"


def _row_problem(row: Mapping[str, Any]) -> str:
    """Return what is wrong with a row by itself, '' for nothing."""
    missing = [key for key in KEYS if key not in row]
    if missing:
        return f"missing {', '.join(missing)}; a row has {', '.join(KEYS)}"
    for key in ("side", "preferred_side"):
        if row[key] not in (0, 1) or isinstance(row[key], bool):
            return f"{key}: expected 0 or 1, got {row[key]!r}"
    if not isinstance(row["label_id"], str):
        return f"label_id: expected text, got {row['label_id']!r}"
    if not isinstance(row["messages"], list) or not row["messages"]:
        return f"messages: expected a list of messages, got {row['messages']!r}"
    return ""
