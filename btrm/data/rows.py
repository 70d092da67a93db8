"""Pointwise rows: a pair becomes two rows, side 0 then side 1, and a rows file is checked before it is trained on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any, cast

from btrm.config import ConfigError
from btrm.prompts import PromptSpec
from btrm.records import PointwiseRow, PreferencePair, read_jsonl

KEYS = ("messages", "pair_id", "label_id", "side", "preferred_side")
_MOST_PROBLEMS = 20


def pair_rows(pair: PreferencePair, prompt: PromptSpec) -> tuple[PointwiseRow, PointwiseRow]:
    """Return the two rows of a pair, side 0 then side 1; a tie has none (ValueError)."""
    if pair.preferred is None:
        raise ValueError(f"{pair.label_id}: a tie has no preferred side, so no rows")
    preferred = pair.preferred
    meta = row_meta(pair)
    first, second = (
        PointwiseRow(prompt.messages(pair.context, response), pair.pair_id, pair.label_id, side, preferred, meta)
        for side, response in enumerate(pair.responses)
    )
    return first, second


def row_meta(pair: PreferencePair) -> dict[str, Any]:
    """Return what --add-meta adds to a row: source, split and the pair's own metadata, never a row's own key."""
    return {"source": pair.source, "split": pair.split, **{k: v for k, v in pair.meta.items() if k not in KEYS}}


class RowEncoder:
    """Writes a pair's two rows as JSON lines, escaping each text once.

    JSON escapes character by character, so the escaped prompt is the concatenation of its escaped parts: the template
    is escaped once for all pairs, the context once for both sides. The lines equal json.dumps of PointwiseRow.to_json.
    """

    def __init__(self, prompt: PromptSpec, add_meta: bool = False) -> None:
        head, tail = prompt.template.split("{response}")
        system = json.dumps({"role": "system", "content": prompt.system}, ensure_ascii=False) + ", "
        opening = '{"messages": [' + (system if prompt.system else "") + '{"role": "user", "content": "'
        self._head = [_escape(part) for part in head.split("{context}")]
        self._head[0] = opening + self._head[0]
        self._tail = _escape(tail) + '"}], "pair_id": '
        self._add_meta = add_meta

    def lines(self, pair: PreferencePair) -> str:
        """Return the two lines, each ending in a newline; a tie has none."""
        if pair.preferred is None:
            return ""
        head = _escape(pair.context).join(self._head)
        ids = f'{self._tail}{encode_basestring(pair.pair_id)}, "label_id": {encode_basestring(pair.label_id)}'
        end = f', "preferred_side": {pair.preferred}{self._meta(pair)}}}\n'
        first, second = pair.responses
        return f'{head}{_escape(first)}{ids}, "side": 0{end}{head}{_escape(second)}{ids}, "side": 1{end}'

    def _meta(self, pair: PreferencePair) -> str:
        return ", " + json.dumps(row_meta(pair), ensure_ascii=False)[1:-1] if self._add_meta else ""


def _escape(text: str) -> str:
    return encode_basestring(text)[1:-1]


def read_rows(path: Path) -> Iterator[PointwiseRow]:
    """Yield the rows of a checked rows file; other columns become metadata. Raises as validate_rows does."""
    validate_rows(path)
    for _, row in read_jsonl(path):
        meta = {key: value for key, value in row.items() if key not in KEYS}
        yield PointwiseRow(**{key: row[key] for key in KEYS}, meta=meta)


def validate_rows(path: Path) -> int:
    """Return the number of pairs in a rows file; raise ConfigError that names every bad line (up to 20).

    A rows file is pairs of lines, side 0 then side 1 of one label. Refused: a lone side, a row key (label_id, side)
    that stands twice, sides that disagree on preferred_side or pair_id, missing or impossible values.
    """
    problems: list[str] = []
    seen: dict[str, int] = {}
    held: dict[str, Any] | None = None  # a side 0 that waits for its side 1
    held_at = pairs = 0
    for number, row in read_jsonl(path):
        bad = _row_problem(row)
        if bad:
            problems.append(f"{path}:{number}: {bad}")
        if len(problems) >= _MOST_PROBLEMS:
            break
        if bad:
            continue
        label, side = cast(str, row["label_id"]), row["side"]
        if held is not None and held["label_id"] == label and side == 1:
            problems += [f"{path}:{number}: {text} (side 0 at line {held_at})" for text in _disagreements(held, row)]
            held, pairs = None, pairs + 1
            continue
        if held is not None:
            problems.append(f"{path}:{held_at}: {_lone(held)}")
            held = None
        first = seen.setdefault(label, number)
        if first != number:
            problems.append(f"{path}:{number}: row key (label_id {label}, side {side}) again; first at line {first}")
        elif side == 1:
            problems.append(f"{path}:{number}: {_lone(row)}")
        else:
            held, held_at = row, number
    if held is not None:
        problems.append(f"{path}:{held_at}: {_lone(held)}")
    if problems:
        raise ConfigError("\n".join(problems[:_MOST_PROBLEMS]))
    if not pairs:
        raise ConfigError(f"{path}: holds no rows")
    return pairs


def _lone(row: Mapping[str, Any]) -> str:
    other = "side 1 must follow" if row["side"] == 0 else "side 0 must stand before it"
    return f"lone side: label_id {row['label_id']} side {row['side']}; its {other}"


def _disagreements(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    return [
        f"label_id {first['label_id']}: sides disagree on {key} ({first[key]!r} and {second[key]!r})"
        for key in ("preferred_side", "pair_id")
        if first[key] != second[key]
    ]


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
