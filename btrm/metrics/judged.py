"""Judgements as arrays: one block for each (judge, split, seed), pairs in one order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btrm.metrics.pairwise import Floats, PairOutcomes, SideScores, UnparsedAs, pair_outcomes, side_scores
from btrm.records import read_judgements
from btrm.scores import Outcome

_COLUMNS = ("judge", "split", "seed", "label_id", "pair_id", "side", "preferred_side", "score", "outcome", "prompt")


@dataclass(frozen=True, slots=True)
class JudgedCell:
    """What one judge said at one seed about the labelled pairs of one split; P pairs, R judgements of them.

    Pairs whose label is a tie have no right answer: they are counted in `label_ties` and are in no array.
    """

    judge: str
    split: str
    seed: int
    prompt: str
    label_id_P: list[str]
    pair_id_P: list[str]
    preferred_P: NDArray[np.int64]
    sides: SideScores
    score_R: Floats
    outcome_R: NDArray[np.str_]
    label_ties: int

    def outcomes(self, bt_temp: float, unparsed: UnparsedAs, scale: tuple[float, float]) -> PairOutcomes:
        """Compare the sides of each pair; `scale` is the (lowest, highest) score of the prompt."""
        return pair_outcomes(self.sides, self.preferred_P, bt_temp, unparsed, scale)

    @property
    def unparsed_rate(self) -> float:
        """Share of all completions without a valid score, whatever the reason."""
        return float(np.mean(self.outcome_R != Outcome.SCORED)) if len(self.outcome_R) else float("nan")


def read_cells(path: Path) -> list[JudgedCell]:
    """Return the cells of a judgements.parquet in the order in which they stand there."""
    table = read_judgements(path).select(list(_COLUMNS))
    columns: dict[str, Any] = {name: table[name].to_numpy(zero_copy_only=False) for name in _COLUMNS}
    return [_cell(columns, rows) for rows in _groups(columns)]


def _groups(columns: dict[str, Any]) -> Iterator[NDArray[np.int64]]:
    """Yield the row numbers of each (judge, split, seed), in order of first appearance."""
    keys = zip(columns["judge"], columns["split"], columns["seed"], strict=True)
    groups: dict[tuple[str, str, int], list[int]] = {}
    for row, key in enumerate(keys):
        groups.setdefault(key, []).append(row)
    return (np.array(rows) for rows in groups.values())


def _cell(columns: dict[str, Any], rows_R: NDArray[np.int64]) -> JudgedCell:
    """Give each label_id its place, labelled pairs first."""
    first = rows_R[0]
    preferred_R = columns["preferred_side"][rows_R].astype(np.float64)
    labelled_R = ~np.isnan(preferred_R)
    kept = rows_R[labelled_R]
    label_R = columns["label_id"][kept]
    place = {label: i for i, label in enumerate(dict.fromkeys(label_R))}
    pair_R = np.array([place[label] for label in label_R], dtype=np.int64)
    _, first_of_P = np.unique(pair_R, return_index=True)
    score_R = columns["score"][kept].astype(np.float64)
    return JudgedCell(
        judge=str(columns["judge"][first]),
        split=str(columns["split"][first]),
        seed=int(columns["seed"][first]),
        prompt=str(columns["prompt"][first]),
        label_id_P=list(place),
        pair_id_P=list(columns["pair_id"][kept][first_of_P]),
        preferred_P=preferred_R[labelled_R][first_of_P].astype(np.int64),
        sides=side_scores(score_R, pair_R, columns["side"][kept].astype(np.int64), len(place)),
        score_R=score_R,
        outcome_R=columns["outcome"][kept].astype(np.str_),
        label_ties=len(set(columns["label_id"][rows_R[~labelled_R]])),
    )


def clusters(pair_id_P: list[str]) -> NDArray[np.int64]:
    """Return cluster_P: pairs that several people labelled share one number, and are resampled together."""
    number = {pair_id: i for i, pair_id in enumerate(dict.fromkeys(pair_id_P))}
    return np.array([number[pair_id] for pair_id in pair_id_P], dtype=np.int64)
