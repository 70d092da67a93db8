"""The typed records that stages hand to each other, and their Parquet and JSONL io."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from btrm.config import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")
SCHEMA_VERSION = 1


def stable_hash(*parts: str, length: int = 16) -> str:
    """Return a hex digest of the parts; a length prefix keeps ("ab", "c") apart from ("a", "bc")."""
    pieces: list[bytes] = []
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        pieces += (b"%d:" % len(data), data)
    return hashlib.sha256(b"".join(pieces)).hexdigest()[:length]


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two responses to one context and which one a person preferred (None: a tie).

    `pair_id` is a hash of what is compared; `label_id` adds who said so (an annotator or the occurrence), and keys
    rows: several people may label one pair.
    """

    pair_id: str
    label_id: str
    context: str
    responses: tuple[str, str]
    preferred: int | None
    source: str
    split: str
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def make(
        cls,
        context: str,
        responses: tuple[str, str],
        preferred: int | None,
        *,
        source: str,
        split: str,
        label: str = "0",
        meta: Mapping[str, Any] | None = None,
    ) -> PreferencePair:
        """Build a pair and derive its ids; `label` tells apart several labels of the same pair."""
        pair_id = stable_hash(source, split, context, *responses)
        return cls(pair_id, f"{pair_id}-{label}", context, responses, preferred, source, split, meta or {})


@dataclass(frozen=True, slots=True)
class PointwiseRow:
    """One side of a pair as the trainers read it. `preferred_side` is the pair's label on both of its rows."""

    messages: list[dict[str, str]]
    pair_id: str
    label_id: str
    side: int
    preferred_side: int
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def to_json(self) -> dict[str, Any]:
        """Return the row as ms-swift reads it: metadata keys beside the others, as columns."""
        row = asdict(self)
        return {**{k: v for k, v in row.items() if k != "meta"}, **dict(self.meta)}


Method = Literal["sampled", "expected", "greedy"]
_LATER = frozenset({"dataset"})  # fields that judgements of the same schema version may lack


@dataclass(frozen=True, slots=True)
class Judgement:
    """One answer of one judge about one side of one labelled pair; a failed parse is data like any other.

    Teacher, student and baseline share it, so it is versioned. `seed` is the cell's seed, `sample` counts within it.
    """

    label_id: str
    pair_id: str
    side: int
    sample: int
    preferred_side: int | None
    split: str
    judge: str
    model_hash: str
    adapter_hash: str | None
    prompt: str
    method: Method
    seed: int
    completion: str
    score: float | None
    outcome: str
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int
    layout: str = "pointwise"
    shown_first: bool | None = None
    distribution: str | None = None
    cost_usd: float | None = None
    request_hash: str | None = None
    schema_version: int = SCHEMA_VERSION
    dataset: str | None = None  # the name under which the grid judged the pair; None: its split


def judgement_schema() -> pa.Schema:
    """Return the Parquet schema of judgements.parquet."""
    import pyarrow as pa

    text, integer, real = pa.string(), pa.int32(), pa.float64()
    kinds = {"int": integer, "int | None": integer, "float | None": real, "bool | None": pa.bool_()}
    return pa.schema([(f.name, kinds.get(str(f.type), text)) for f in fields(Judgement)])


def pair_schema() -> pa.Schema:
    """Return the Parquet schema of pairs.parquet; `meta` is JSON text, since its keys differ from source to source."""
    import pyarrow as pa

    text = pa.string()
    return pa.schema(
        [
            ("pair_id", text),
            ("label_id", text),
            ("context", text),
            ("response_0", text),
            ("response_1", text),
            ("preferred", pa.int8()),
            ("source", text),
            ("split", text),
            ("meta", text),
        ]
    )


def write_judgements(path: Path, judgements: Iterable[Judgement]) -> int:
    """Write judgements.parquet whole; return the number of rows. Atomicity is the caller's (publishing)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = list(judgements)
    columns = {f.name: [getattr(row, f.name) for row in rows] for f in fields(Judgement)}
    pq.write_table(pa.table(columns, schema=judgement_schema()), path, compression="zstd")
    return len(rows)


def read_judgements(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the judgements, or some columns, as an Arrow table; raise ConfigError for another schema version."""
    import pyarrow.parquet as pq

    read = None if columns is None else [*columns, "schema_version"]
    with pq.ParquetFile(path) as file:  # a small part is read sooner without threads
        table = cast("pa.Table", file.read(columns=read, use_threads=file.num_row_groups > 1))
    table = _with_later_fields(table, columns)
    versions = set(table["schema_version"].unique().to_pylist())
    if versions - {SCHEMA_VERSION}:
        raise ConfigError(f"{path}: judgements of schema version {sorted(versions)}, this btrm reads {SCHEMA_VERSION}")
    return table


def _with_later_fields(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    """Add what an older btrm did not write, as nulls: a field that comes later may be missing."""
    import pyarrow as pa

    for field_ in judgement_schema():
        if field_.name in _LATER and field_.name not in table.column_names and field_.name in (columns or _LATER):
            table = table.append_column(field_, pa.nulls(table.num_rows, field_.type))
    return table


def write_pairs(path: Path, pairs: Iterable[PreferencePair], batch: int = 4096) -> int:
    """Stream pairs to Parquet in row groups of `batch`, so that memory stays flat; return the number of rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count = 0
    schema = pair_schema()
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for chunk in _chunks(pairs, batch):
            writer.write_table(pa.Table.from_pylist([_pair_to_json(pair) for pair in chunk], schema=schema))
            count += len(chunk)
    return count


def read_pairs(path: Path, limit: int | None = None) -> Iterator[PreferencePair]:
    """Stream the pairs of a pairs.parquet, the first `limit` where given."""
    import pyarrow.parquet as pq

    left = limit
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=4096):
            for row in batch.to_pylist():
                if left is not None:
                    if left == 0:
                        return
                    left -= 1
                yield _pair_from_json(row)


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write one JSON object a line; return the number of lines."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object); raise ConfigError with file:line for a line that is not a JSON object."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ConfigError(f"{path}:{number}: not JSON: {error.msg} at column {error.colno}") from None
            if not isinstance(row, dict):
                raise ConfigError(f"{path}:{number}: expected a JSON object, got {type(row).__name__}")
            yield number, cast("dict[str, Any]", row)


def _pair_to_json(pair: PreferencePair) -> dict[str, Any]:
    return {
        "pair_id": pair.pair_id,
        "label_id": pair.label_id,
        "context": pair.context,
        "response_0": pair.responses[0],
        "response_1": pair.responses[1],
        "preferred": pair.preferred,
        "source": pair.source,
        "split": pair.split,
        "meta": json.dumps(dict(pair.meta), ensure_ascii=False),
    }


def _pair_from_json(row: Mapping[str, Any]) -> PreferencePair:
    return PreferencePair(
        row["pair_id"],
        row["label_id"],
        row["context"],
        (row["response_0"], row["response_1"]),
        row["preferred"],
        row["source"],
        row["split"],
        json.loads(row["meta"]),
    )


def _chunks(items: Iterable[T], size: int) -> Iterator[Sequence[T]]:
    chunk: list[T] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
