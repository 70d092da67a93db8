"""The data sets of a stage, each with its pairs by number: what all cells together hold, and what they lack."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from btrm.judges.cells import Cell, Part, parts_by_cell
from btrm.judges.numbered import Pairs
from btrm.work import Ranges, Unit, overlap

_LOOKS = 5


@dataclass(frozen=True, slots=True)
class PairSets:
    """{data set: its pairs}; a teacher's only one is called None, as in its cell."""

    by_name: Mapping[str | None, Pairs]

    def of(self, cell: Cell) -> Pairs:
        """Return the pairs that a cell is about."""
        return self.by_name[cell.dataset]

    def parts(self, directory: Path, cells: Sequence[Cell]) -> dict[str, list[Part]]:
        """Return {cell: its parts in reading order}, from one look at the directory.

        A part from before data sets had names goes to the first cell that it is about; give all cells, so that it goes
        to the same one each time. Raises FileNotFoundError for a part that went meanwhile.
        """
        found = parts_by_cell(directory)
        parts = {cell.name: list(found.get(cell.name, ())) for cell in cells}
        heirs: dict[str, list[Cell]] = defaultdict(list)
        for cell in cells:
            if cell.older_name != cell.name and cell.older_name in found:
                heirs[cell.older_name].append(cell)
        for name, mine in heirs.items():
            for part in found[name]:
                if heir := self._heir(part, mine):
                    parts[heir.name].append(part)
        return {name: sorted(mine) for name, mine in parts.items()}

    def _heir(self, part: Part, cells: Sequence[Cell]) -> Cell | None:
        """Return the cell that a part is about: by its name where that tells, else by its first row."""
        by_name = (cell for cell in cells if self.of(cell).is_run(cell, part))
        return next(by_name, None) or next((cell for cell in cells if self.of(cell).holds_first(part)), None)

    def missing_units(self, directory: Path, cells: Sequence[Cell]) -> list[Unit]:
        """Return what is missing of each cell that is not complete."""
        return [Unit(cell.name, holes) for cell, holes in self._missing(directory, cells, cells)]

    def still_missing(self, directory: Path, cells: Sequence[Cell], units: Sequence[Unit]) -> list[tuple[Cell, Ranges]]:
        """Return what the units ask of these cells, which are all there are, and nobody has done by now."""
        asked = {unit.name: unit.missing for unit in units}
        mine = [cell for cell in cells if cell.name in asked]
        todo = ((cell, overlap(asked[cell.name], holes)) for cell, holes in self._missing(directory, cells, mine))
        return [(cell, holes) for cell, holes in todo if holes]

    def _missing(self, directory: Path, cells: Sequence[Cell], wanted: Iterable[Cell]) -> list[tuple[Cell, Ranges]]:
        """Look again where a part was there and is gone: its rows stand in a longer one now."""
        wanted = list(wanted)
        for look in range(1, _LOOKS + 1):
            try:
                parts = self.parts(directory, cells)
                missing = [(cell, self.of(cell).missing(cell, parts[cell.name])) for cell in wanted]
                return [(cell, holes) for cell, holes in missing if holes]
            except FileNotFoundError:
                if look == _LOOKS:
                    raise
        raise AssertionError("the last look returns or raises")
