"""Any JSONL, JSON or Parquet file, by saying which column is what.

Columns are named by role: `context`; `response_0` and `response_1` with `preferred`, or `chosen` and `rejected`.
`context=instruction+input` joins columns; `preferred=annotator1+annotator2` makes one labelled pair of each;
`first`, `second` and `tie` are the values that `preferred` takes (0, 1 and null by default). A number is the same
however the file holds it: integers with nulls often come as 0.0, 1.0 and NaN, a yes or no as true and false.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from btrm.config import ConfigError, nearest
from btrm.data.items import Dropped, Item, Occurrences, Query, malformed, ordered
from btrm.data.reading import SourceRow, expand_files, read_source_rows

ROLES = (
    "context", "response_0", "response_1", "preferred", "chosen", "rejected",
    "first", "second", "tie", "annotator", "meta", "source",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """A checked mapping. `labels` is empty where the responses are (chosen, rejected)."""

    context: tuple[str, ...]
    responses: tuple[str, str]
    labels: tuple[str, ...]
    values: Mapping[str, int | None]
    annotator: str | None
    meta: tuple[str, ...]
    source: str

    @classmethod
    def build(cls, columns: Mapping[str, str]) -> ColumnMap:
        """Check the roles; raise ConfigError that names all that is wrong with them."""
        problems = [f"columns.{role}: no such role{nearest(role, ROLES)}" for role in columns if role not in ROLES]
        chosen = "chosen" in columns or "rejected" in columns
        needed = ("context", "chosen", "rejected") if chosen else ("context", "response_0", "response_1", "preferred")
        problems += [f"columns.{role}: required, not given" for role in needed if not columns.get(role)]
        clash = [role for role in ("response_0", "response_1", "preferred") if chosen and role in columns]
        problems += [f"columns.{role}: not beside chosen and rejected" for role in clash]
        if problems:
            raise ConfigError("\n".join(problems) + "\nexample: context=prompt,chosen=chosen,rejected=rejected")
        values: dict[str, int | None] = {columns.get("first", "0"): 0, columns.get("second", "1"): 1}
        values[columns.get("tie", "None")] = None
        return cls(
            _names(columns["context"]),
            (columns[needed[1]], columns[needed[2]]),
            () if chosen else _names(columns["preferred"]),
            values,
            columns.get("annotator"),
            _names(columns.get("meta", "")),
            columns.get("source", "mapped"),
        )


def mapped(query: Query) -> Iterator[Item]:
    """Yield the pairs and drops of a split's data files."""
    if not query.data_files:
        raise ConfigError("dataset mapped reads files: give data_files")
    columns = ColumnMap.build(query.columns)
    seen = Occurrences()
    for row in read_source_rows(expand_files(query.data_files)):
        yield from _items(row, columns, query.split, seen)


def _items(row: SourceRow, columns: ColumnMap, split: str, seen: Occurrences) -> Iterator[Item]:
    if row.value is None:
        yield malformed(row, row.problem)
        return
    problem = _problem(row.value, columns)
    if problem:
        yield malformed(row, problem)
        return
    value = row.value
    context = "\n\n".join(text for name in columns.context if (text := (value[name] or "").strip()))
    first, second = (value[name].strip() for name in columns.responses)
    if not context or not first or not second:
        yield Dropped(row.where, "empty_text", "the context or a response is empty", value)
    elif first == second:
        yield Dropped(row.where, "identical_responses", "the two responses are equal", value)
    else:
        meta = {name: value.get(name) for name in columns.meta}
        annotator = str(_plain(value[columns.annotator])) if columns.annotator else ""
        for label, responses, preferred in _labels(value, columns, (first, second)):
            name = ".".join(part for part in (annotator, label) if part)
            yield seen.pair(context, responses, preferred, source=columns.source, split=split, label=name, meta=meta)


def _labels(
    value: Mapping[str, Any], columns: ColumnMap, responses: tuple[str, str]
) -> Iterator[tuple[str, tuple[str, str], int | None]]:
    """Yield (label's name, responses, preferred) for each label of a row."""
    if not columns.labels:
        yield "", *ordered(*responses)
    for name in columns.labels:
        yield name if len(columns.labels) > 1 else "", responses, columns.values[_label(value[name], columns.values)]


def _problem(value: Mapping[str, Any], columns: ColumnMap) -> str:
    """Return what is wrong with a row, '' for nothing."""
    named = (*columns.context, *columns.responses, *columns.labels, *columns.meta)
    for name in (*named, *([columns.annotator] if columns.annotator else [])):
        if name not in value:
            return f"no column {name!r}{nearest(name, value)}"
    for name in (*columns.context, *columns.responses):
        if not isinstance(value[name], str) and not (value[name] is None and name in columns.context):
            return f"{name!r}: expected text, got {value[name]!r:.80}"
    for name in columns.labels:
        if _label(value[name], columns.values) not in columns.values:
            return f"{name!r}: expected {', '.join(columns.values)}, got {value[name]!r:.80}"
    return ""


def _label(value: Any, valid: Container[str]) -> str:
    """Return a label as it is written if that is a valid one (`first=True`), else in its plain form (1)."""
    return str(value) if str(value) in valid else str(_plain(value))


def _plain(value: Any) -> Any:
    """Return 1 for 1.0 and true, 0 for 0.0 and false, None for NaN; anything else as it is."""
    if isinstance(value, float) and math.isnan(value):
        return None
    return int(value) if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()) else value


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split("+") if name.strip())
