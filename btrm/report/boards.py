"""All judges of one data set side by side: their credits on the same pairs, and their rows of the summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from btrm.metrics.bootstrap import Interval
from btrm.metrics.judged import JudgedCell
from btrm.metrics.pairwise import Floats, Ints
from btrm.report.rows import EvalRow, JudgeKey, SummaryRow, key_of, key_order, missing_cells


@dataclass(frozen=True, slots=True)
class Board:
    """A data set's judges in their order: eval.jsonl rows by seed, and credit_PS of each on the P pairs of all of them.

    A credit is 1 right, 1/2 a tie, 0 wrong, NaN where the judge has none for the pair at that seed.
    """

    dataset: str
    evals: Mapping[JudgeKey, tuple[EvalRow, ...]]
    credits: Mapping[JudgeKey, Floats]
    cluster_P: Ints

    @property
    def keys(self) -> list[JudgeKey]:
        """The judges."""
        return list(self.evals)

    @property
    def missing(self) -> dict[JudgeKey, tuple[str, ...]]:
        """What each judge lacks of the cells that there are."""
        evals = [row for rows in self.evals.values() for row in rows]
        seeds = sorted({int(row["seed"]) for row in evals})
        n_pairs = max(int(row["n_pairs"]) for row in evals)
        return {key: missing_cells(own, seeds, n_pairs) for key, own in self.evals.items()}

    def accuracy(self, key: JudgeKey) -> float:
        """Return a judge's accuracy, the mean over its seeds; -inf where no pair defines it."""
        told = [row["accuracy"] for row in self.evals[key] if row.get("accuracy") is not None]
        return float(np.mean(told)) if told else -np.inf


def read_boards(evals: Sequence[EvalRow], cells: Sequence[JudgedCell]) -> list[Board]:
    """Return a board a data set, in the order of their names."""
    return [
        _board(dataset, [row for row in evals if row["dataset"] == dataset], cells)
        for dataset in sorted({str(row["dataset"]) for row in evals})
    ]


def board_rows(board: Board, intervals: Mapping[JudgeKey, Interval]) -> list[SummaryRow]:
    """Return the rows of a board's judges, not compared yet; `intervals` are of their accuracies."""
    return [
        SummaryRow(key, board.dataset, own, intervals[key], missing=board.missing[key])
        for key, own in board.evals.items()
    ]


def _board(dataset: str, evals: Sequence[EvalRow], cells: Sequence[JudgedCell]) -> Board:
    keys = sorted({key_of(row) for row in evals}, key=key_order)
    settings = {(key_of(row), int(row["seed"])): row for row in evals}
    mine = [cell for cell in cells if cell.dataset == dataset and (_key(cell), cell.seed) in settings]
    place = {label: i for i, label in enumerate(dict.fromkeys(label for c in mine for label in c.label_id_P))}
    cluster_P = np.zeros(len(place), dtype=np.int64)
    columns: dict[JudgeKey, list[Floats]] = {key: [] for key in keys}
    for cell in mine:
        where = np.array([place[label] for label in cell.label_id_P], dtype=np.int64)
        cluster_P[where] = cell.cluster_P
        credit_P = np.full(len(place), np.nan)
        credit_P[where] = _credits(cell, settings[_key(cell), cell.seed])
        columns[_key(cell)].append(credit_P)
    return Board(
        dataset=dataset,
        evals={key: tuple(row for row in evals if key_of(row) == key) for key in keys},
        credits={key: np.stack(c, 1) if c else np.full((len(place), 1), np.nan) for key, c in columns.items()},
        cluster_P=np.unique(cluster_P, return_inverse=True)[1].ravel().astype(np.int64),
    )


def _key(cell: JudgedCell) -> JudgeKey:
    return JudgeKey(cell.judge, cell.prompt, cell.method)


def _credits(cell: JudgedCell, settings: EvalRow) -> Floats:
    """Return the credits by the very settings that the cell's row was computed with."""
    scale = (float(settings["scale_low"]), float(settings["scale_high"]))
    return cell.outcomes(float(settings["bt_temp"]), settings["unparsed"], scale).credit_P
