"""From parts to judgements.parquet: each row key once, in an order that does not tell who asked, or when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from btrm.judges.cells import Cell, Pairs, Part, parts_by_cell, read_part
from btrm.records import judgement_schema
from btrm.runs import StageRun, replace

if TYPE_CHECKING:
    import pyarrow as pa

RowKey = tuple[str, int, int]  # label_id, side, sample


def read_cell(cell: Cell, parts: Sequence[Part]) -> pa.Table:
    """Return the rows of a cell, each (label_id, side, sample) once: the first in reading order."""
    import pyarrow as pa

    whole = pa.concat_tables([judgement_schema().empty_table(), *(read_part(part, cell) for part in parts)])
    first: dict[RowKey, int] = {}
    for row, key in enumerate(_keys(whole)):
        first.setdefault(key, row)
    return whole if len(first) == whole.num_rows else whole.take(list(first.values()))


def _keys(table: pa.Table) -> Iterator[RowKey]:
    columns = (table[name].to_pylist() for name in ("label_id", "side", "sample"))
    return zip(*columns, strict=True)


def rebuild(run: StageRun, directory: Path, cells: Sequence[Cell], pairs: Pairs) -> int:
    """Write judgements.parquet from the cells that the config names, cut to its pairs; return its rows.

    Rows go by cell, then by the pairs' order, side and sample: the file does not tell how often it was extended.
    """
    import pyarrow.parquet as pq

    place = {label: number for number, label in enumerate(pairs.labels[: pairs.wanted])}
    parts = parts_by_cell(directory)
    scratch = run.scratch("judgements.parquet")
    rows = 0
    with pq.ParquetWriter(scratch, judgement_schema(), compression="zstd") as writer:
        for cell in cells:
            table = _ordered(read_cell(cell, parts.get(cell.name, [])), place)
            rows += table.num_rows
            writer.write_table(table)
    replace(scratch, run.dir / "judgements.parquet")
    return rows


def _ordered(table: pa.Table, place: Mapping[str, int]) -> pa.Table:
    keyed = [
        (place[label], side, sample, row) for row, (label, side, sample) in enumerate(_keys(table)) if label in place
    ]
    return table.take([row for *_, row in sorted(keyed)])
