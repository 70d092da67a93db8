"""How a source takes its rows apart: values of the right kind, or the row is malformed and says why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from btrm.config import ConfigError, nearest
from btrm.data.chat_text import ChatError, chat_text, read_chat
from btrm.data.items import Dropped, Item, Query, malformed
from btrm.data.reading import SourceRow, expand_files, hub_rows, read_source_rows
from btrm.hub import HubItem


class RowError(ValueError):
    """A row is not what its format promises; says what is wrong with it."""


def read_each(rows: Iterable[SourceRow], read: Callable[[SourceRow], Iterable[Item]]) -> Iterator[Item]:
    """Yield what `read` makes of each row; a RowError or ChatError makes the whole row malformed."""
    for row in rows:
        if row.value is None:
            yield malformed(row, row.problem)
            continue
        try:
            items = list(read(row))
        except (RowError, ChatError) as error:
            items = [malformed(row, str(error))]
        yield from items


def rows_of(query: Query, hub: HubItem, config: str | None, split: str) -> Iterator[SourceRow]:
    """Return the rows of the query's files, where it has any, else those of a split on the hub."""
    return file_rows(query, hub.name) if query.data_files else hub_rows(hub, config, split)


def file_rows(query: Query, what: str) -> Iterator[SourceRow]:
    """Return the rows of the query's files; raise ConfigError where it has none."""
    if not query.data_files:
        raise ConfigError(f"{what}: is read from files; give data_files")
    return read_source_rows(expand_files(query.data_files))


def fields(row: SourceRow) -> Mapping[str, Any]:
    """Return the row's columns."""
    assert row.value is not None
    return row.value


def column(row: SourceRow, name: str) -> Any:
    """Return a column's value; raise RowError that names the nearest column where it lacks."""
    value = fields(row)
    if name not in value:
        raise RowError(f"no column {name!r}{nearest(name, value)}")
    return value[name]


def text(row: SourceRow, name: str) -> str:
    """Return a column of text as it is; raise RowError for anything else."""
    value = column(row, name)
    if not isinstance(value, str):
        raise RowError(f"{name!r}: expected text, got {value!r:.80}")
    return value


def one_of(row: SourceRow, name: str, valid: Mapping[int, Any]) -> Any:
    """Return what a column's whole number stands for; 1.0 and "1" are 1, true is no number. Else RowError."""
    value = column(row, name)
    number = None if isinstance(value, bool) else _whole(value)
    if number is None or number not in valid:
        raise RowError(f"{name!r}: expected {', '.join(map(str, valid))}, got {value!r:.80}")
    return valid[number]


def _whole(value: Any) -> int | None:
    try:
        return int(value) if float(value) == int(value) else None
    except (TypeError, ValueError, OverflowError):
        return None


def asked(value: Any) -> str:
    """Return the context that a prompt, a text or messages, makes: the text of a conversation that ends in it."""
    return chat_text(read_chat(value))


def drop(row: SourceRow, reason: str, detail: str) -> Dropped:
    """Return the drop of a row for a reason that is no mistake of its format."""
    return Dropped(row.where, reason, detail, row.value)
