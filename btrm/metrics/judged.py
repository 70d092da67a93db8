"""Reading a judgements.parquet as cells, column by column: texts are numbers as soon as they are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from btrm.config import ConfigError
from btrm.metrics.judged_cell import JudgedCell, TiedPairs, clusters
from btrm.metrics.pair_facts import PairFacts, PairTable, read_pair_table
from btrm.metrics.pairwise import Floats, Ints
from btrm.records import Method, read_judgements

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["JudgedCell", "TiedPairs", "clusters", "read_cells"]
_KEY = ("judge", "dataset", "seed", "prompt")
_TEXTS = ("judge", "prompt", "method", "outcome", "label_id", "pair_id")
_MASS = r'"mass": *(?P<mass>[-+.0-9eE]+)'
_NUMBERS = ("seed", "side", "sample", "preferred_side", "score")


def read_cells(judgements: Path, pairs: Path | None = None) -> list[JudgedCell]:
    """Return the cells of a judgements.parquet in the order in which they stand there.

    With `pairs`, a pairs.parquet that has them all, cells have facts and pairs of one context share a cluster.
    Raises ConfigError where that lacks judged pairs, and where a sample was judged twice.
    """
    table = read_judgements(judgements, [*_TEXTS, *_NUMBERS, "split", "dataset", "distribution"])
    file = _File(judgements, table, read_pair_table(pairs) if pairs is not None else None)
    return [file.cell(rows_R) for rows_R in file.groups()]


@dataclass(frozen=True, slots=True)
class _Coded:
    """A column of texts as numbers into the distinct ones."""

    code_R: Ints
    values: pa.Array[Any]


@dataclass(frozen=True, slots=True)
class _Labels:
    """What cells about the same labels share."""

    label_ids: list[str]
    pair_ids: list[str]
    cluster_P: Ints
    facts: PairFacts | None


class _File:
    """The columns of a judgements.parquet, texts as numbers."""

    def __init__(self, path: Path, table: pa.Table, pairs: PairTable | None) -> None:
        import pyarrow.compute as pc

        self._path = path
        self._pairs = pairs
        self._texts = {name: _coded(table[name]) for name in _TEXTS}
        self._texts["dataset"] = _coded(pc.call_function("coalesce", [table["dataset"], table["split"]]))
        self._numbers = {name: table[name].to_numpy() for name in _NUMBERS}
        self._mass = _masses(table["distribution"])
        labels = self._texts["label_id"].values
        self._row_of_label = pairs.rows_of(labels) if pairs is not None else np.arange(len(labels))
        self._labels: dict[bytes, _Labels] = {}

    def groups(self) -> Iterator[NDArray[np.int64]]:
        """Yield the row numbers of each cell, cells in order of first appearance."""
        numbers = [self._texts[name].code_R if name in self._texts else self._numbers[name] for name in _KEY]
        group_R, _ = _by_appearance(_distinct(numbers))
        order_R = np.argsort(group_R, kind="stable")
        return iter(np.split(order_R, np.cumsum(np.bincount(group_R))[:-1]) if len(order_R) else [])

    def cell(self, rows_R: NDArray[np.int64]) -> JudgedCell:
        """Return the cell of these rows."""
        first = int(rows_R[0])
        preferred_R = self._numbers["preferred_side"][rows_R].astype(np.float64)
        label_R = self._texts["label_id"].code_R[rows_R]
        tied_R = np.isnan(preferred_R)
        rows_R, tied_rows_R = rows_R[~tied_R], rows_R[tied_R]
        pair_R, first_P = _by_appearance(label_R[~tied_R])
        labels = self._shared(rows_R[first_P])
        score_P2K, asked_P2 = self._scores(rows_R, pair_R, len(first_P))
        outcome = self._texts["outcome"]
        return JudgedCell(
            judge=self._text("judge", first),
            dataset=self._text("dataset", first),
            seed=int(self._numbers["seed"][first]),
            prompt=self._text("prompt", first),
            method=cast(Method, self._text("method", first)),
            label_id_P=labels.label_ids,
            pair_id_P=labels.pair_ids,
            cluster_P=labels.cluster_P,
            preferred_P=preferred_R[~tied_R][first_P].astype(np.int64),
            score_P2K=score_P2K,
            asked_P2=asked_P2,
            outcome_R=outcome.values.to_numpy(zero_copy_only=False).astype(np.str_)[outcome.code_R[rows_R]],
            label_ties=len(np.unique(label_R[tied_R])),
            facts=labels.facts,
            mass_R=self._mass[rows_R],
            pair_R=pair_R,
            tied=self._tied(tied_rows_R) if len(tied_rows_R) else None,
        )

    def _tied(self, rows_R: NDArray[np.int64]) -> TiedPairs:
        pair_R, first_P = _by_appearance(self._texts["label_id"].code_R[rows_R])
        labels = self._shared(rows_R[first_P])
        scores = self._scores(rows_R, pair_R, len(first_P))
        return TiedPairs(labels.label_ids, labels.pair_ids, labels.cluster_P, *scores, labels.facts)

    def _text(self, name: str, row: int) -> str:
        column = self._texts[name]
        return str(column.values[int(column.code_R[row])].as_py())

    def _scores(self, rows_R: NDArray[np.int64], pair_R: Ints, n_pairs: int) -> tuple[Floats, Ints]:
        """Give each answer its place (pair, side, sample); raise ConfigError where two have one."""
        side_R = self._numbers["side"][rows_R].astype(np.int64)
        samples, sample_R = np.unique(self._numbers["sample"][rows_R], return_inverse=True)
        place_R = (pair_R * 2 + side_R) * len(samples) + sample_R
        count = np.bincount(place_R, minlength=2 * n_pairs * len(samples))
        if count.max(initial=0) > 1:
            row = int(rows_R[np.flatnonzero(count[place_R] > 1)[0]])
            where = f"side {self._numbers['side'][row]}, sample {self._numbers['sample'][row]}"
            raise ConfigError(
                f"{self._path}: label_id {self._text('label_id', row)}, {where} is there more than once for "
                f"{self._text('judge', row)}, seed {self._numbers['seed'][row]}: a sample is judged once"
            )
        score = np.full(len(count), np.nan)
        score[place_R] = self._numbers["score"][rows_R]
        shape = (n_pairs, 2, len(samples))
        return score.reshape(shape), count.reshape(shape).sum(2).astype(np.int64)

    def _shared(self, rows_P: NDArray[np.int64]) -> _Labels:
        label_P, pair_P = (self._texts[name].code_R[rows_P] for name in ("label_id", "pair_id"))
        key = label_P.tobytes()
        if key not in self._labels:
            cluster_P, facts = pair_P, None
            if self._pairs is not None:
                row_P = self._row_of_label[label_P]
                cluster_P, facts = self._pairs.context_R[row_P], self._pairs.facts(row_P)
            label_ids, pair_ids = self._texts["label_id"].values, self._texts["pair_id"].values
            self._labels[key] = _Labels(_texts(label_ids, label_P), _texts(pair_ids, pair_P), cluster_P, facts)
        return self._labels[key]


def _coded(column: Any) -> _Coded:
    found = column.dictionary_encode().combine_chunks()
    return _Coded(found.indices.to_numpy().astype(np.int64), found.dictionary)


def _masses(distribution: Any) -> Floats:
    """Return the mass that each distribution tells; NaN where there is none."""
    import pyarrow.compute as pc

    if distribution.null_count == len(distribution):
        return np.full(len(distribution), np.nan)
    found = pc.call_function("extract_regex", [distribution], pc.ExtractRegexOptions(_MASS))
    mass = pc.call_function("struct_field", [found], pc.StructFieldOptions(["mass"]))
    return np.array(mass.to_numpy(zero_copy_only=False), dtype=np.float64)


def _texts(values: pa.Array[Any], code_N: Ints) -> list[str]:
    import pyarrow as pa

    return cast("list[str]", values.take(pa.array(code_N)).to_pylist())


def _distinct(columns: list[Ints]) -> Ints:
    """Return one number for each distinct row of several columns."""
    number_R = np.zeros(len(columns[0]), dtype=np.int64)
    for column_R in columns:
        values, code_R = np.unique(column_R, return_inverse=True)
        number_R = np.unique(number_R * max(len(values), 1) + code_R, return_inverse=True)[1].astype(np.int64)
    return number_R


def _by_appearance(value_R: Ints) -> tuple[Ints, NDArray[np.int64]]:
    """Number distinct values 0, 1, ... as they appear; return the numbers and where each value is first."""
    _, first, code_R = np.unique(value_R, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    order = np.argsort(first)
    rank[order] = np.arange(len(first))
    return rank[code_R], first[order]
