"""What sources are asked and what they yield: pairs with unique labels, and drops with a reason."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from btrm.data.reading import SourceRow
from btrm.records import PreferencePair, stable_hash

MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked of a source. `limit` is a hint: the caller stops at it, a source may stop earlier.

    `data_files` empty means the hub. `columns` and `options` are the source's own (mapping, choices).
    """

    split: str
    limit: int | None = None
    data_files: tuple[Path, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    options: Mapping[str, str] = field(default_factory=dict[str, str])
    seed: int = 0
    label_noise: float = 0.0


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that became no pair. Malformed ones are errors unless skipping was asked for; other reasons are counts."""

    where: str
    reason: str
    detail: str
    row: Any = None

    def to_json(self) -> dict[str, Any]:
        """Return the record as it is written to dropped.jsonl."""
        return {"where": self.where, "reason": self.reason, "detail": self.detail, "row": self.row}


Item = PreferencePair | Dropped


def malformed(row: SourceRow, detail: str) -> Dropped:
    """Return the drop of a row that is not what its format promises."""
    return Dropped(row.where, MALFORMED, detail, row.value)


def ordered(chosen: str, rejected: str) -> tuple[tuple[str, str], int]:
    """Return (responses, preferred side), on sides that the texts decide, so that the label is not always side 0.

    The order does not depend on which one was chosen: contradicting labels of one pair share its pair_id.
    """
    first, second = (chosen, rejected) if chosen < rejected else (rejected, chosen)
    if zlib.crc32((first + second).encode("utf-8", "surrogatepass")) & 1:
        first, second = second, first
    return (first, second), 0 if first is chosen else 1


class Occurrences:
    """Counts how often an id came before, in 16 bytes an id: a set of strings would grow with the data.

    Ids are 64-bit (16 hex digits); the table is an open-addressed array that starts with room for 262,144.
    """

    def __init__(self, bits: int = 19) -> None:
        self._table = array("Q", bytes(8 << bits))
        self._mask = (1 << bits) - 1
        self._used = 0
        self._again: dict[int, int] = {}

    def pair(
        self,
        context: str,
        responses: tuple[str, str],
        preferred: int | None,
        *,
        source: str,
        split: str,
        label: str = "",
        meta: Mapping[str, Any] | None = None,
    ) -> PreferencePair:
        """Return a pair whose label_id ends in its label (an annotator), if any, and its occurrence."""
        pair_id = stable_hash(source, split, context, *responses)
        key = stable_hash(pair_id, label) if label else pair_id
        name = f"{label}." if label else ""
        label_id = f"{pair_id}-{name}{self.count(key)}"
        return PreferencePair(pair_id, label_id, context, responses, preferred, source, split, meta or {})

    def count(self, hex_id: str) -> int:
        """Return how many times this id was counted before, and count it."""
        key = int(hex_id[:16], 16) or 1  # 0 marks an empty slot
        if self._insert(key):
            return 0
        self._again[key] = self._again.get(key, 0) + 1
        return self._again[key]

    def _insert(self, key: int) -> bool:
        """Put a key into the table; return False where it was there already."""
        table, mask = self._table, self._mask
        slot = key & mask
        while (held := table[slot]) != 0:
            if held == key:
                return False
            slot = (slot + 1) & mask
        table[slot] = key
        self._used += 1
        if self._used * 2 > mask:
            self._grow()
        return True

    def _grow(self) -> None:
        keys = self._table
        self._table = array("Q", bytes(16 * len(keys)))
        self._mask = 2 * len(keys) - 1
        self._used = 0
        for key in keys:
            if key:
                self._insert(key)
