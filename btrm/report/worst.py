"""The worst pairs of a judge, to read side by side: confidently wrong ones, and loud disagreements with itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from btrm.records import read_judgements
from btrm.report.report_input import Answer, Trouble, WorstPair
from btrm.report.rows import JudgeKey

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float64]
_SCORED = ("label_id", "judge", "prompt", "method", "dataset", "split", "side", "score", "preferred_side")
_ANSWERED = ("label_id", "side", "seed", "sample", "score", "outcome", "completion")
_BATCH = 16_384  # rows whose completions are in memory at once
_TEXTS = ("label_id", "context", "response_0", "response_1", "source")


def worst_pairs(judgements: Path, pairs: Path | None, judge: JudgeKey, dataset: str, each: int = 8) -> list[WorstPair]:
    """Return up to `each` pairs of every kind of trouble for a judge on a data set, the worst first.

    "wrong": the margin of the mean scores is the most negative. "disagreement": single answers give the most different
    margins, among the other pairs with two scores a side. All seeds and samples count together. Without pairs.parquet
    there are no texts to read, and the list is empty.
    """
    if pairs is None:
        return []
    judged = _judged(judgements, judge, dataset)
    wrong = _largest(-judged.margin_P, each)
    torn = [place for place in _largest(judged.spread_P, each + len(wrong)) if place not in wrong][:each]
    chosen: dict[int, Trouble] = {**dict.fromkeys(wrong, "wrong"), **dict.fromkeys(torn, "disagreement")}
    labels = [judged.label_P[place] for place in chosen]
    texts = _texts(pairs, labels)
    answers = _answers(judgements, judge, dataset, labels)
    return [
        WorstPair(
            trouble=trouble,
            checkpoint=judge.checkpoint,
            dataset=dataset,
            label_id=label,
            context=texts[label]["context"],
            responses=(texts[label]["response_0"], texts[label]["response_1"]),
            preferred=int(judged.preferred_P[place]),
            scores=(_known(judged.mean_P2[place, 0]), _known(judged.mean_P2[place, 1])),
            margin=_known(judged.margin_P[place]),
            spread=_known(judged.spread_P[place]),
            answers=tuple(answers.get(label, ())),
            source=texts[label]["source"],
        )
        for place, trouble in chosen.items()
        if (label := judged.label_P[place]) in texts
    ]


@dataclass(frozen=True, slots=True)
class _Judged:
    """P labelled pairs: the mean score of each side, the preferred one's margin, and its spread over answers."""

    label_P: list[str]
    preferred_P: NDArray[np.int64]
    mean_P2: Floats
    margin_P: Floats
    spread_P: Floats


def _judged(path: Path, judge: JudgeKey, dataset: str) -> _Judged:
    """Read what a judge said about the labelled pairs of a data set, all seeds together."""
    table = _of(read_judgements(path, _SCORED), judge, dataset)
    table = table.filter(table["preferred_side"].is_valid())
    coded = cast("Any", table["label_id"].combine_chunks().dictionary_encode())
    label_P, pair_R = cast("list[str]", coded.dictionary.to_pylist()), coded.indices.to_numpy().astype(np.int64)
    side_R, preferred_R = _ints(table, "side"), _ints(table, "preferred_side")
    score_R = cast("Floats", table["score"].to_numpy().astype(np.float64))
    preferred_P = np.zeros(len(label_P), np.int64)
    preferred_P[pair_R] = preferred_R
    mean_P2, variance_P2 = _moments(score_R, pair_R * 2 + side_R, len(label_P))
    margin_P = (mean_P2[:, 1] - mean_P2[:, 0]) * (2 * preferred_P - 1)
    return _Judged(label_P, preferred_P, mean_P2, margin_P, np.sqrt(variance_P2.sum(axis=1)))


def _of(table: pa.Table, judge: JudgeKey, dataset: str) -> pa.Table:
    """Keep what a judge said about a data set; where none is named it is the split."""
    import pyarrow.compute

    compute: Any = pyarrow.compute
    named = compute.coalesce(table["dataset"], table["split"]) if "dataset" in table.column_names else table["split"]
    wanted = zip(("judge", "prompt", "method"), judge, strict=True)
    same = [compute.equal(table[name], value) for name, value in wanted if value]
    return table.filter(reduce(compute.and_, same, compute.equal(named, dataset)))


def _ints(table: pa.Table, name: str) -> NDArray[np.int64]:
    return cast("NDArray[np.int64]", table[name].to_numpy().astype(np.int64))


def _moments(score_R: Floats, place_R: NDArray[np.int64], n_pairs: int) -> tuple[Floats, Floats]:
    """Return each side's mean and sample variance over its scores, shapes (P, 2); NaN for too few."""
    told_R = ~np.isnan(score_R)
    score_N, place_N = score_R[told_R], place_R[told_R]
    count = np.bincount(place_N, minlength=2 * n_pairs)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(place_N, score_N, 2 * n_pairs) / count
        squares = np.bincount(place_N, (score_N - mean[place_N]) ** 2, 2 * n_pairs)
        variance = np.where(count > 1, squares / (count - 1), math.nan)
    return mean.reshape(n_pairs, 2), variance.reshape(n_pairs, 2)


def _largest(value_P: Floats, most: int) -> list[int]:
    """Return the places of the largest values above 0, the first of equal ones first."""
    order = np.argsort(-np.nan_to_num(value_P, nan=-1.0), kind="stable")[:most]
    return [int(place) for place in order if value_P[place] > 0]


def _known(value: np.float64) -> float | None:
    return float(value) if math.isfinite(value) else None


def _texts(pairs: Path, labels: Sequence[str]) -> dict[str, Mapping[str, str]]:
    import pyarrow.parquet as pq

    rows = pq.read_table(pairs, columns=list(_TEXTS), filters=[("label_id", "in", list(labels))]) if labels else None
    return {} if rows is None else {row["label_id"]: row for row in rows.to_pylist()}


def _answers(path: Path, judge: JudgeKey, dataset: str, labels: Sequence[str]) -> dict[str, list[Answer]]:
    """Return the answers about some pairs, by label, in the order of side, seed and sample."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = pa.array(labels, pa.string())
    rows: list[dict[str, Any]] = []
    with pq.ParquetFile(path) as file:
        names = [name for name in file.schema_arrow.names if name in {*_SCORED, *_ANSWERED}]
        for batch in file.iter_batches(_BATCH, columns=names) if labels else ():  # completions are large: never all
            told = pa.Table.from_batches([batch]).filter(_is_in(batch["label_id"], wanted))
            rows += cast("list[dict[str, Any]]", _of(told, judge, dataset).select(list(_ANSWERED)).to_pylist())
    found: dict[str, list[Answer]] = {}
    for row in sorted(rows, key=lambda row: (row["side"], row["seed"], row["sample"])):
        found.setdefault(str(row.pop("label_id")), []).append(Answer(**row))
    return found


def _is_in(values: pa.Array[Any], wanted: pa.Array[Any]) -> Any:
    import pyarrow.compute

    compute: Any = pyarrow.compute
    return compute.is_in(values, value_set=wanted)
