"""The pairs of a data set by number: which of them a cell's parts hold, and which are missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, cast

from btrm.config import ConfigError
from btrm.judges.cells import Cell, Part, digest, read_part
from btrm.records import PreferencePair, pair_schema, read_judgements, read_pairs
from btrm.work import Ranges

if TYPE_CHECKING:
    import pyarrow as pa

_HOW = "of a data set's own file, the pairs stage or btrm data convert FILE --to btrm makes one"


class Pairs:
    """The pairs of a data set by number: their labels, of which the first `wanted` are to be judged."""

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

    @cached_property
    def wanted_labels(self) -> pa.Array:
        """The labels of the wanted pairs."""
        import pyarrow as pa

        return pa.array(self.labels[: self.wanted], pa.string())

    def part_name(self, cell: Cell, labels: Sequence[str]) -> str:
        """Return the file name of the part that holds the pairs with these labels, ascending by number."""
        numbers = [number for label in labels if (number := self.numbers.get(label)) is not None]
        first, last = (numbers[0], numbers[-1] + 1) if numbers else (0, 0)
        return f"{cell.name}.{first}-{last}-{digest(cell, labels)}.parquet"

    def is_run(self, cell: Cell, part: Part) -> bool:
        """Say, by its name alone, whether a part holds all of [first, last) and was judged with the cell's weights."""
        return part.last <= len(self.labels) and part.digest == self._run_digest(cell, part.first, part.last)

    def holds_first(self, part: Part) -> bool:
        """Open a part and say whether the pair of its first row is one of these."""
        labels = read_judgements(part.path, ["label_id"])["label_id"]
        return len(labels) > 0 and labels[0].as_py() in self.numbers

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


def _holes(there: bytearray) -> Ranges:
    found: list[tuple[int, int]] = []
    first = there.find(0)
    while first >= 0:
        last = there.find(1, first)
        found.append((first, last if last >= 0 else len(there)))
        first = there.find(0, last) if last >= 0 else -1
    return tuple(found)


def read_numbered(path: Path, asked: Iterable[Ranges], skip: int = 0) -> dict[int, PreferencePair]:
    """Return the pairs of a pairs.parquet that are asked about, by number."""
    wanted = {number for missing in set(asked) for r in missing for number in range(*r)}
    pairs = islice(read_pairs(path, skip + max(wanted, default=-1) + 1), skip, None)
    return {number: pair for number, pair in enumerate(pairs) if number in wanted}


def read_labels(path: Path, skip: int = 0) -> list[str]:
    """Return the label of each pair of a pairs.parquet; raise ConfigError for another file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.is_dir():
        raise ConfigError(f"{path}: a folder, no pairs.parquet; {_HOW}")
    try:
        with pq.ParquetFile(path) as file:
            missing = sorted(set(pair_schema().names) - set(file.schema_arrow.names))
            if missing:
                raise ConfigError(f"{path}: no pairs.parquet, columns {', '.join(missing)} are missing; {_HOW}")
            table = cast("pa.Table", file.read(columns=["label_id"]))
    except pa.ArrowInvalid:
        raise ConfigError(f"{path}: no pairs.parquet; {_HOW}") from None
    return cast("list[str]", table["label_id"].to_pylist())[skip:]
