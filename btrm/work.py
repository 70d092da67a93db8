"""Work that can be cut anywhere: what is missing, by unit and row, and one element's share of it.

A unit is a cell of a grid or a teacher's whole job; its rows are pairs, by number. A share is a contiguous run of all
missing rows, so that an element meets few units (few model loads), all shares are equally long, and any number of
elements fits: a rerun with another array size cuts what is then missing anew.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import cast

import orjson

from btrm.publishing import replace

Range = tuple[int, int]  # [first, last + 1) of the rows that are missing
Ranges = tuple[Range, ...]
_LONG = 200  # rows a share from which on seeds are cut together
_SEED = re.compile(r"_seed-?\d+(?=@|\Z)")


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit with rows missing."""

    name: str
    missing: Ranges

    @property
    def rows(self) -> int:
        """How many rows are missing."""
        return sum([last - first for first, last in self.missing])


def ranges(numbers: Sequence[int]) -> Ranges:
    """Return ascending numbers as ranges."""
    found: list[Range] = []
    for number in numbers:
        if found and found[-1][1] == number:
            found[-1] = (found[-1][0], number + 1)
        else:
            found.append((number, number + 1))
    return tuple(found)


def overlap(one: Ranges, other: Ranges) -> Ranges:
    """Return what two sets of ranges, each ascending, have in common."""
    found: list[Range] = []
    mine, theirs = list(one[::-1]), list(other[::-1])
    while mine and theirs:
        first, last = max(mine[-1][0], theirs[-1][0]), min(mine[-1][1], theirs[-1][1])
        if first < last:
            found.append((first, last))
        (mine if mine[-1][1] == last else theirs).pop()
    return tuple(found)


def share(units: Sequence[Unit], element: int, elements: int) -> list[Unit]:
    """Return element `element` of `elements`' share: rows [e * R / E, (e + 1) * R / E) of all R missing ones.

    Where shares are long, the seeds of a cell that lack the same rows are cut together: one element asks about a pair
    under all of them, reads the prompt once, and its share is longer or shorter by less than a row a seed.
    """
    sizes = [unit.rows for unit in units]
    total = sum(sizes)
    first, last = element * total // elements, (element + 1) * total // elements
    mine: list[Unit] = []
    before = 0
    for bundle in _bundles(units) if total >= _LONG * elements else [[unit] for unit in units]:
        rows, width = bundle[0].rows, len(bundle)
        begin, end = (-(-min(max(cut - before, 0), rows * width) // width) for cut in (first, last))
        if begin < end:
            missing = tuple(_cut(bundle[0].missing, begin, end))
            mine += [Unit(unit.name, missing) for unit in bundle]
        before += rows * width
    return mine


def _bundles(units: Sequence[Unit]) -> Iterator[list[Unit]]:
    """Yield neighbours that are called alike but for the seed and lack the same rows."""
    for _, alike in groupby(units, key=lambda unit: (_SEED.sub("", unit.name), unit.missing)):
        yield list(alike)


@dataclass(frozen=True, slots=True)
class Pool:
    """All that was missing when an array began, as element `element` of `elements` sees it."""

    units: Sequence[Unit]
    element: int
    elements: int

    def own(self) -> list[Unit]:
        """Return this element's share."""
        return share(self.units, self.element, self.elements)

    def others(self) -> Iterator[list[Unit]]:
        """Yield the other elements' shares, the next one's first."""
        for step in range(1, self.elements):
            yield share(self.units, (self.element + step) % self.elements, self.elements)

    def part(self, worker: int, workers: int) -> Pool:
        """Return the pool as one of an element's several workers sees it: each has a part of the element's share."""
        return Pool(self.units, self.element * workers + worker, self.elements * workers)


def _cut(missing: Sequence[Range], first: int, last: int) -> Iterator[Range]:
    """Yield what lies in rows [first, last) of the ranges laid end to end."""
    before = 0
    for start, stop in missing:
        low, high = max(first - before, 0), min(last - before, stop - start)
        if low < high:
            yield start + low, start + high
        before += stop - start


def write_units(path: Path, units: Sequence[Unit]) -> None:
    """Write units whole or not at all: the split of an array is pinned by the units that all its elements read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:6]}")
    try:
        scratch.write_bytes(orjson.dumps({unit.name: unit.missing for unit in units}))
        replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def read_units(path: Path) -> list[Unit]:
    """Return what `write_units` wrote, in its order."""
    written = cast("dict[str, list[list[int]]]", orjson.loads(path.read_bytes()))
    return [Unit(name, tuple([(first, last) for first, last in missing])) for name, missing in written.items()]


def read_sizes(path: Path) -> list[int]:
    """Return the rows of each unit that `write_units` wrote: all that a count of them needs."""
    written = cast("dict[str, list[list[int]]]", orjson.loads(path.read_bytes()))
    return [sum(last - first for first, last in missing) for missing in written.values()]
