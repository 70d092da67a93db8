"""Cells and their parts on disk: a part's name says which pairs it holds, so that most need not be opened.

A cell is `LABEL_seedSEED@DATASET`, a part of it `CELL.FIRST-LAST-DIGEST.parquet`: the pairs that it holds lie in
[FIRST, LAST), and the digest is of their labels and of the weights that judged them. Two attempts that ask the same
meet in one name, and the first wins; two that ask something else never clash. A part is never changed, and removed
only when a longer one holds all its rows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from btrm.config import ConfigError
from btrm.judges.base import Sampling
from btrm.prompts import PromptSpec
from btrm.records import Method, read_judgements, stable_hash

if TYPE_CHECKING:
    import pyarrow as pa

_PART = re.compile(r"(?P<cell>.+?)(?:\.(?P<first>\d+)-(?P<last>\d+)-(?P<digest>[0-9a-f]{16})|\.(?P<number>\d+))?\Z")


@dataclass(frozen=True, slots=True)
class Cell:
    """One judge at one seed on one data set, and what is written about it into every row of its answers.

    A teacher's cell has no data set: its rows' split is theirs. `expected`: its scores are means of what might be.
    """

    name: str
    judge: str
    model_hash: str
    adapter_hash: str | None
    prompt: PromptSpec
    sampling: Sampling
    n_samples: int
    seed: int
    dataset: str | None = None
    expected: Literal["expected"] | None = None

    @property
    def older_name(self) -> str:
        """The name from before data sets had names: parts that are called so hold the rows of any one of them."""
        return self.name.partition("@")[0]

    @property
    def method(self) -> Method:
        """How this cell's answers were drawn."""
        return self.expected or ("greedy" if self.sampling.temperature == 0 else "sampled")


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


def digest(cell: Cell, labels: Iterable[str]) -> str:
    """Return what a part is known by: the cell's weights and the labels of its pairs, in their order."""
    return stable_hash(cell.model_hash, cell.adapter_hash or "", *labels)


def read_part(part: Part, cell: Cell, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a part's rows; raise ConfigError where they were judged with other weights than the cell has now."""
    hashes = {"model_hash": cell.model_hash, "adapter_hash": cell.adapter_hash}
    table = read_judgements(part.path, None if columns is None else [*columns, *hashes])
    for name, now in hashes.items():
        before = table[name].unique().to_pylist()
        if before not in ([now], []):
            raise ConfigError(
                f"{part.path}: {cell.judge} was judged with other weights ({name} {before[0]}, now {now}); "
                "give the new ones another label or another --run"
            )
    return table
