"""What is known of judged pairs beside their scores: lengths, subsets, metadata, and which of them share a context."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from btrm.config import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

_COLUMNS = ("label_id", "pair_id", "context", "response_0", "response_1", "source", "meta")
_NAMED = 3


@dataclass(frozen=True, eq=False)
class PairFacts:
    """Of P pairs in a cell's order: the characters of both responses, where they come from, their metadata as JSON."""

    length_P2: NDArray[np.int64]
    source_P: list[str]
    meta_json_P: list[str]

    @cached_property
    def meta_P(self) -> list[Mapping[str, Any]]:
        """The metadata that the pairs' source wrote."""
        return [json.loads(text) if text else {} for text in self.meta_json_P]

    @cached_property
    def subset_P(self) -> list[str]:
        """The part of a benchmark that each pair belongs to; "" for none."""
        return [str(meta.get("subset") or "") for meta in self.meta_P]

    @cached_property
    def benchmark_P(self) -> list[str]:
        """The benchmark of each pair: its metadata's, else the name of its source."""
        found = zip(self.meta_P, self.source_P, strict=True)
        return [str(meta.get("benchmark") or source) for meta, source in found]

    @property
    def benchmark(self) -> str:
        """The benchmark of all pairs; "" where they are of several, or none."""
        names = set(self.benchmark_P)
        return names.pop() if len(names) == 1 else ""


@dataclass(frozen=True, eq=False)
class PairTable:
    """A pairs.parquet by label. `context_R` numbers the contexts of its R rows: equal texts, equal numbers.

    A pair without any context shares it with no other.
    """

    path: Path
    label_id: pa.Array[Any]
    context_R: NDArray[np.int64]
    length_R2: NDArray[np.int64]
    source: pa.Array[Any]
    meta: pa.Array[Any]

    def rows_of(self, label_id: pa.Array[Any]) -> NDArray[np.int64]:
        """Return the row of each label (its first); raise ConfigError where there is none."""
        import pyarrow.compute as pc

        found = pc.call_function("index_in", [label_id], pc.SetLookupOptions(self.label_id))
        if found.null_count:
            absent = cast("list[str]", label_id.filter(found.is_null()).to_pylist())
            raise ConfigError(
                f"{self.path}: lacks {len(absent)} judged pairs ({', '.join(absent[:_NAMED])}, ...); "
                "give the pairs that were judged, or run judge again, which writes them"
            )
        return found.to_numpy().astype(np.int64)

    def facts(self, row_P: NDArray[np.int64]) -> PairFacts:
        """Return what is known of the pairs in these rows."""
        return PairFacts(self.length_R2[row_P], _texts(self.source, row_P), _texts(self.meta, row_P))


def read_pair_table(path: Path) -> PairTable:
    """Return what metrics need of a pairs.parquet; texts are measured and numbered, not kept."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=list(_COLUMNS))
    lengths = [pc.call_function("utf8_length", [table[f"response_{side}"]]).to_numpy() for side in (0, 1)]
    return PairTable(
        path=path,
        label_id=table["label_id"].combine_chunks(),
        context_R=_contexts(table),
        length_R2=np.stack(lengths, 1).astype(np.int64),
        source=table["source"].combine_chunks(),
        meta=table["meta"].combine_chunks(),
    )


def _contexts(table: pa.Table) -> NDArray[np.int64]:
    import pyarrow as pa
    import pyarrow.compute as pc

    blank = pc.call_function("equal", [pc.call_function("utf8_trim_whitespace", [table["context"]]), pa.scalar("")])
    known = pc.call_function("if_else", [blank, table["pair_id"], table["context"]])
    return known.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)


def _texts(column: pa.Array[Any], row_P: NDArray[np.int64]) -> list[str]:
    import pyarrow as pa

    return cast("list[str]", column.take(pa.array(row_P)).to_pylist())
