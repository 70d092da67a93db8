"""The pairs of a stage by number: which of them a cell's parts hold, and which are missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, cast

from btrm.judges.cells import Cell, Part, digest, parts_by_cell, read_part
from btrm.records import PreferencePair, read_pairs
from btrm.work import Ranges, Unit, overlap

if TYPE_CHECKING:
    import pyarrow as pa


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

    def part_name(self, cell: Cell, labels: Sequence[str]) -> str:
        """Return the file name of the part that holds the pairs with these labels, ascending by number."""
        numbers = [number for label in labels if (number := self.numbers.get(label)) is not None]
        first, last = (numbers[0], numbers[-1] + 1) if numbers else (0, 0)
        return f"{cell.name}.{first}-{last}-{digest(cell, labels)}.parquet"

    def is_run(self, cell: Cell, part: Part) -> bool:
        """Say, by its name alone, whether a part holds all of [first, last) and was judged with the cell's weights."""
        return part.last <= len(self.labels) and part.digest == self._run_digest(cell, part.first, part.last)

    def _run_digest(self, cell: Cell, first: int, last: int) -> str:
        key = first, last, cell.model_hash, cell.adapter_hash
        if key not in self._digests:
            self._digests[key] = digest(cell, islice(self.labels, first, last))
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

    def missing_units(self, directory: Path, cells: Sequence[Cell]) -> list[Unit]:
        """Return what is missing of each cell that is not complete."""
        return [Unit(cell.name, holes) for cell, holes in self._missing(directory, cells)]

    def still_missing(self, directory: Path, cells: Iterable[Cell], units: Sequence[Unit]) -> list[tuple[Cell, Ranges]]:
        """Return what the units ask of these cells and nobody has done by now."""
        asked = {unit.name: unit.missing for unit in units}
        mine = [cell for cell in cells if cell.name in asked]
        todo = ((cell, overlap(asked[cell.name], holes)) for cell, holes in self._missing(directory, mine))
        return [(cell, holes) for cell, holes in todo if holes]

    def _missing(self, directory: Path, cells: Sequence[Cell], looks: int = 5) -> list[tuple[Cell, Ranges]]:
        """Look again where a part was there and is gone: its rows stand in a longer one now."""
        parts = parts_by_cell(directory)
        try:
            missing = [(cell, self.missing(cell, parts.get(cell.name, ()))) for cell in cells]
        except FileNotFoundError:
            if looks == 1:
                raise
            return self._missing(directory, cells, looks - 1)
        return [(cell, holes) for cell, holes in missing if holes]


def _holes(there: bytearray) -> Ranges:
    found: list[tuple[int, int]] = []
    first = there.find(0)
    while first >= 0:
        last = there.find(1, first)
        found.append((first, last if last >= 0 else len(there)))
        first = there.find(0, last) if last >= 0 else -1
    return tuple(found)


def read_numbered(path: Path, units: Sequence[Unit], skip: int = 0) -> dict[int, PreferencePair]:
    """Return the pairs of a pairs.parquet that the units ask about, by number."""
    wanted = {number for missing in {unit.missing for unit in units} for r in missing for number in range(*r)}
    pairs = islice(read_pairs(path, skip + max(wanted, default=-1) + 1), skip, None)
    return {number: pair for number, pair in enumerate(pairs) if number in wanted}


def read_labels(path: Path, skip: int = 0) -> list[str]:
    """Return the label of each pair of a pairs.parquet."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        table = cast("pa.Table", file.read(columns=["label_id"]))
    return cast("list[str]", table["label_id"].to_pylist())[skip:]
