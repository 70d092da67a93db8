"""Cells and their parts on disk: a part's name says which pairs it holds, so that most need not be opened.

A part is `CELL.FIRST-LAST-DIGEST.parquet`: the pairs that it holds lie in [FIRST, LAST), and the digest is of their
labels and of the weights that judged them. Two attempts that ask the same meet in one name, and the first wins; two
that ask something else never clash. A part is never changed, and removed only when a longer one holds all its rows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, cast

from btrm.config import ConfigError
from btrm.judges.base import Sampling
from btrm.prompts import PromptSpec
from btrm.records import Method, PreferencePair, read_judgements, read_pairs, stable_hash
from btrm.work import Ranges, Unit

if TYPE_CHECKING:
    import pyarrow as pa

_PART = re.compile(r"(?P<cell>.+?)(?:\.(?P<first>\d+)-(?P<last>\d+)-(?P<digest>[0-9a-f]{16})|\.(?P<number>\d+))?\Z")


@dataclass(frozen=True, slots=True)
class Cell:
    """One judge at one seed, and what is written about it into every row of its answers."""

    name: str
    judge: str
    model_hash: str
    adapter_hash: str | None
    prompt: PromptSpec
    sampling: Sampling
    n_samples: int
    seed: int

    @property
    def method(self) -> Method:
        """How this cell's answers were drawn."""
        return "greedy" if self.sampling.temperature == 0 else "sampled"


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """A part by its name. The order is the one in which parts are read: where two hold a row, the first counts.

    The longest goes first, so that a part that was made of others goes before them.
    """

    minus_length: int
    first: int
    digest: str
    path: Path

    @property
    def last(self) -> int:
        """The end of the pairs."""
        return self.first - self.minus_length


def parts_by_cell(directory: Path) -> dict[str, list[Part]]:
    """Return {cell: parts in reading order}, from one look at the directory."""
    found: dict[str, list[Part]] = {}
    try:
        names = [entry.name for entry in os.scandir(directory)]
    except FileNotFoundError:
        return {}
    for name in names:
        stem, dot, suffix = name.rpartition(".")
        if dot and suffix == "parquet" and (match := _PART.match(stem)):
            found.setdefault(match["cell"], []).append(_part(directory / name, match))
    for parts in found.values():
        parts.sort()
    return found


def _part(path: Path, match: re.Match[str]) -> Part:
    if match["digest"] is None:  # numbered in the order of winning, by an older version
        return Part(0, int(match["number"] or 0), "", path)
    first, last = int(match["first"]), int(match["last"])
    return Part(first - last, first, match["digest"], path)


class Pairs:
    """The pairs of a stage by number: their labels, of which the first `wanted` are to be judged."""

    def __init__(self, labels: Sequence[str], wanted: int) -> None:
        self.labels = labels
        self.wanted = wanted
        self._whole: Ranges = ((0, wanted),)
        self._numbers: dict[str, int] = {}
        self._digests: dict[tuple[int, int, str, str | None], str] = {}

    @property
    def numbers(self) -> Mapping[str, int]:
        """{label: number}."""
        if not self._numbers:
            self._numbers = {label: number for number, label in enumerate(self.labels)}
        return self._numbers

    def part_name(self, cell: Cell, numbers: Sequence[int]) -> str:
        """Return the file name of the part that holds these pairs (ascending)."""
        first, last = (numbers[0], numbers[-1] + 1) if numbers else (0, 0)
        if last - first == len(numbers):
            digest = self._run_digest(cell, first, last)
        else:
            digest = _digest(cell, (self.labels[number] for number in numbers))
        return f"{cell.name}.{first}-{last}-{digest}.parquet"

    def is_run(self, cell: Cell, part: Part) -> bool:
        """Say, by its name alone, whether a part holds all of [first, last) and was judged with the cell's weights."""
        return part.last <= len(self.labels) and part.digest == self._run_digest(cell, part.first, part.last)

    def _run_digest(self, cell: Cell, first: int, last: int) -> str:
        key = first, last, cell.model_hash, cell.adapter_hash
        if key not in self._digests:
            self._digests[key] = _digest(cell, islice(self.labels, first, last))
        return self._digests[key]

    def missing(self, cell: Cell, parts: Sequence[Part]) -> Ranges:
        """Return the wanted pairs that a cell lacks. Raises ConfigError for parts that other weights judged."""
        if not parts:
            return self._whole
        there = bytearray(self.wanted)
        for part in parts:
            if self.is_run(cell, part):
                last = min(part.last, self.wanted)
                there[part.first : last] = b"\1" * (last - part.first)
            else:
                for label in set(read_part(part, cell, ["label_id"])["label_id"].to_pylist()):
                    if (number := self.numbers.get(label, self.wanted)) < self.wanted:
                        there[number] = 1
        return _holes(there)

    def missing_units(self, directory: Path, cells: Iterable[Cell]) -> list[Unit]:
        """Return what is missing of each cell that is not complete."""
        parts = parts_by_cell(directory)
        missing = ((cell.name, self.missing(cell, parts.get(cell.name, ()))) for cell in cells)
        return [Unit(name, holes) for name, holes in missing if holes]


def _digest(cell: Cell, labels: Iterable[str]) -> str:
    return stable_hash(cell.model_hash, cell.adapter_hash or "", *labels)


def _holes(there: bytearray) -> Ranges:
    found: list[tuple[int, int]] = []
    first = there.find(0)
    while first >= 0:
        last = there.find(1, first)
        found.append((first, last if last >= 0 else len(there)))
        first = there.find(0, last) if last >= 0 else -1
    return tuple(found)


def read_part(part: Part, cell: Cell, columns: list[str] | None = None) -> pa.Table:
    """Return a part's rows; raise ConfigError where they were judged with other weights than the cell has now."""
    hashes = {"model_hash": cell.model_hash, "adapter_hash": cell.adapter_hash}
    table = read_judgements(part.path)
    for name, now in hashes.items():
        before = table[name].unique().to_pylist()
        if before not in ([now], []):
            raise ConfigError(
                f"{part.path}: {cell.judge} was judged with other weights ({name} {before[0]}, now {now}); "
                "give the new ones another label or another --run"
            )
    return table if columns is None else table.select(columns)


def read_numbered(path: Path, units: Sequence[Unit], skip: int = 0) -> dict[int, PreferencePair]:
    """Return the pairs of a pairs.parquet that the units ask about, by number."""
    wanted = {number for missing in {unit.missing for unit in units} for r in missing for number in range(*r)}
    pairs = islice(read_pairs(path, skip + max(wanted, default=-1) + 1), skip, None)
    return {number: pair for number, pair in enumerate(pairs) if number in wanted}


def read_labels(path: Path, skip: int = 0) -> list[str]:
    """Return the label of each pair of a pairs.parquet."""
    import pyarrow.parquet as pq

    table = cast("pa.Table", pq.read_table(path, columns=["label_id"]))
    return cast("list[str]", table["label_id"].to_pylist())[skip:]
