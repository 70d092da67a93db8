"""The rows of a Parquet file as a JSON file would hold them, whatever types its columns have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from btrm.config import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_BATCH = 1024
_JSON_TYPES = ("null", "boolean", "integer", "floating", "string", "large_string", "string_view")


def read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    """Stream the rows; dates, decimals and bytes become texts. Raises ConfigError for a broken file."""
    number = 0
    with _opened(path) as file:
        is_json = all(_is_json(column.type) for column in file.schema_arrow)
        batches = file.iter_batches(batch_size=_BATCH)
        while (batch := _next_batch(path, number, batches)) is not None:
            rows = batch.to_pylist()
            number += len(rows)
            yield from rows if is_json else (orjson.loads(orjson.dumps(row, default=str)) for row in rows)


def count_parquet(path: Path) -> int:
    """Return the number of rows, as the file says it; raise ConfigError for what is no Parquet file."""
    with _opened(path) as file:
        return file.metadata.num_rows


def _opened(path: Path) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise ConfigError(f"{path}: not a Parquet file: {error}") from None


def _next_batch(path: Path, number: int, batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
    """Return the rows after `number`, None at the end."""
    try:
        return next(batches, None)
    except (OSError, ValueError) as error:  # pyarrow's own errors are one or the other
        raise ConfigError(f"{path}: broken Parquet file, after row {number}: {error}") from None


def _is_json(kind: pa.DataType) -> bool:
    """Say whether JSON has all values of a type."""
    import pyarrow as pa

    if pa.types.is_nested(kind):
        return not pa.types.is_map(kind) and all(_is_json(kind.field(i).type) for i in range(kind.num_fields))
    if pa.types.is_dictionary(kind):
        return _is_json(kind.value_type)
    return any(getattr(pa.types, f"is_{name}")(kind) for name in _JSON_TYPES)
