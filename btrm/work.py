"""Work that can be cut anywhere: what is missing, by unit and row, and one element's share of it.

A unit is a cell of a grid or a teacher's whole job; its rows are pairs, by number. A share is a contiguous run of all
missing rows, so that an element meets few units (few model loads), all shares are equally long, and any number of
elements fits: a rerun with another array size cuts what is then missing anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from btrm.config import Config

Range = tuple[int, int]  # [first, last + 1) of the rows that are missing


class Unit(Config):
    """A unit with rows missing."""

    name: str
    missing: tuple[Range, ...]

    @property
    def rows(self) -> int:
        """How many rows are missing."""
        return sum(last - first for first, last in self.missing)


def ranges(numbers: Sequence[int]) -> tuple[Range, ...]:
    """Return ascending numbers as ranges."""
    found: list[Range] = []
    for number in numbers:
        if found and found[-1][1] == number:
            found[-1] = (found[-1][0], number + 1)
        else:
            found.append((number, number + 1))
    return tuple(found)


def share(units: Sequence[Unit], element: int, elements: int) -> list[Unit]:
    """Return element `element` of `elements`' share: rows [e * R / E, (e + 1) * R / E) of all R missing ones."""
    total = sum(unit.rows for unit in units)
    first, last = element * total // elements, (element + 1) * total // elements
    mine: list[Unit] = []
    before = 0
    for unit in units:
        cut = tuple(_cut(unit.missing, first - before, last - before))
        if cut:
            mine.append(Unit(name=unit.name, missing=cut))
        before += unit.rows
    return mine


def _cut(missing: Sequence[Range], first: int, last: int) -> Iterator[Range]:
    """Yield what lies in rows [first, last) of the ranges laid end to end."""
    before = 0
    for start, stop in missing:
        low, high = max(first - before, 0), min(last - before, stop - start)
        if low < high:
            yield start + low, start + high
        before += stop - start
