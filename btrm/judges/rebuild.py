"""From parts to judgements.parquet: each row key once, in an order that does not tell who asked, or when."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from btrm.judges.cells import Cell, Part, read_part
from btrm.judges.numbered import Pairs
from btrm.judges.pair_sets import PairSets
from btrm.leases import check_held
from btrm.publishing import replace, win
from btrm.records import judgement_schema
from btrm.runs import StageRun

if TYPE_CHECKING:
    import pyarrow as pa

RowKey = tuple[str, int, int]  # label_id, side, sample
_GROUP_ROWS = 50_000


def rebuild(run: StageRun, directory: Path, cells: Sequence[Cell], sets: PairSets) -> int:
    """Write judgements.parquet from the cells that the config names, cut to its pairs; return its rows.

    Rows go by cell, then by the pairs' order, side and sample: the file does not tell how often it was extended. A cell
    in several parts becomes one part on the way.
    """
    import pyarrow.parquet as pq

    parts = sets.parts(directory, cells)
    scratch = run.scratch("judgements.parquet")
    tables = (
        _cut(compact(cell, parts[cell.name], sets.of(cell), scratch.with_name("part.parquet")), cell, sets.of(cell))
        for cell in cells
    )
    rows = 0
    with pq.ParquetWriter(scratch, judgement_schema(), compression="zstd") as writer:
        for group in _groups(tables):
            rows += group.num_rows
            writer.write_table(group)
    replace(scratch, run.dir / "judgements.parquet")
    return rows


def compact(cell: Cell, parts: Sequence[Part], pairs: Pairs, scratch: Path) -> pa.Table:
    """Return a cell's rows in the pairs' order; put one part into the place of several.

    The one is won first and the others are removed then: killed anywhere, each row is still in some part. Only what was
    read, or is known to stand in what was read, is removed: a part that another attempt adds meanwhile stays.
    """
    needed = _needed(cell, parts, pairs)
    table = _read(cell, needed, pairs)
    kept = needed[0].path if len(needed) == 1 else None
    if len(needed) > 1:
        kept = needed[0].path.with_name(pairs.part_name(cell, table["label_id"].unique().to_pylist()))
        _write(table, scratch)
        win(scratch, kept)
    if len(parts) > 1:
        check_held()
    for part in parts:
        if part.path != kept:
            part.path.unlink(missing_ok=True)
    return table


def _read(cell: Cell, parts: Sequence[Part], pairs: Pairs) -> pa.Table:
    """Return the rows of parts in the pairs' order; runs of pairs that do not overlap need no sorting."""
    import pyarrow as pa

    by_first = sorted(parts, key=lambda part: part.first)
    apart = all(before.last <= after.first for before, after in pairwise(by_first))
    sorted_already = apart and all(pairs.is_run(cell, part) for part in parts)
    tables = [read_part(part, cell) for part in (by_first if sorted_already else parts)]
    table = pa.concat_tables([judgement_schema().empty_table(), *tables])
    return table if sorted_already else _ordered(table, pairs)


def _write(table: pa.Table, path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, path, compression="zstd")


def _needed(cell: Cell, parts: Sequence[Part], pairs: Pairs) -> list[Part]:
    """Return the parts that hold anything which no part before them is known to hold."""
    needed: list[Part] = []
    runs: list[Part] = []
    for part in parts:
        if pairs.is_run(cell, part):
            if any(run.first <= part.first and part.last <= run.last for run in runs):
                continue
            runs.append(part)
        needed.append(part)
    return needed


def _ordered(table: pa.Table, pairs: Pairs) -> pa.Table:
    """Return each row key once, the first of them, in the pairs' order; rows of unknown pairs stand at the end."""
    numbers, unknown = pairs.numbers, len(pairs.labels)
    first: dict[RowKey, int] = {}
    for row, key in enumerate(_keys(table)):
        first.setdefault(key, row)
    return table.take([first[key] for key in sorted(first, key=lambda key: (numbers.get(key[0], unknown), *key))])


def _keys(table: pa.Table) -> Iterator[RowKey]:
    columns = (table[name].to_pylist() for name in ("label_id", "side", "sample"))
    return zip(*columns, strict=True)


def _cut(table: pa.Table, cell: Cell, pairs: Pairs) -> pa.Table:
    """Leave out the rows of pairs that are not wanted; name the data set where an older btrm did not."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not table["label_id"].unique().equals(pairs.wanted_labels):
        table = table.filter(pc.field("label_id").isin(pairs.wanted_labels))
    place = table.schema.get_field_index("dataset")
    if cell.dataset is None or table["dataset"].null_count == 0:
        return table
    return table.set_column(place, table.schema.field(place), pa.repeat(cell.dataset, table.num_rows))


def _groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Join small tables: a file of many tiny row groups is slow to read and mostly footer."""
    import pyarrow as pa

    group: list[pa.Table] = []
    rows = 0
    for table in tables:
        group.append(table)
        rows += table.num_rows
        if rows >= _GROUP_ROWS:
            yield pa.concat_tables(group).combine_chunks()
            group, rows = [], 0
    if rows:
        yield pa.concat_tables(group).combine_chunks()
