"""Official scores of sets whose people may call a tie (PandaLM, Auto-J), for a judge that scores each response alone.

Such a judge names no tie; its verdict comes from the difference D of both mean scores and a tie margin m: the first
response where D > m, the second where D < -m, a tie where |D| <= m. A pair with an unparsed side is a tie for every m.
Three margins are told, since the choice matters more than the judge on some sets:

- none: m = 0, only equal means are a tie;
- fitted: for each fifth of the pairs, the m that is best on the other four (pairs of one context stay together). This
  is the honest figure of a judge that is allowed to know how often people call a tie;
- best: the m that is best on these very pairs, which is how Auto-J's leaderboard treats reward models (it searches a
  threshold for "tie"): an upper bound, to be compared with that table alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from btrm.metrics.judged import JudgedCell, TiedPairs
from btrm.metrics.official_score import OfficialScore
from btrm.metrics.pairwise import Floats, Ints, SideScores, sides_of_samples

TIE = 2  # as a label beside 0 and 1
_FOLDS = 5
_MAJORITY = {"0": 0, "1": 1, "tie": TIE}


@dataclass(frozen=True, slots=True)
class TieVerdicts:
    """What people said of P items (0, 1, 2 a tie), and the judge's difference of mean scores, first less second.

    An item with an unparsed side has a difference of 0. `cluster_P`: items of one number are fitted together.
    """

    said_P: Ints
    difference_P: Floats
    cluster_P: Ints

    def verdict_P(self, margin_P: Floats | float) -> Ints:
        """Return what the judge says with a tie margin."""
        side_P = np.where(self.difference_P > 0, 0, 1)
        return np.where(np.abs(self.difference_P) <= margin_P, TIE, side_P)

    def fitted_margin_P(self) -> Floats:
        """Return for each item the margin that is best on the items of the other folds; 0 where there are none."""
        fold_P = self.cluster_P % _FOLDS
        margin_P = np.zeros(len(fold_P))
        for fold in range(_FOLDS):
            margin_P[fold_P == fold] = best_margin(self.said_P[fold_P != fold], self.difference_P[fold_P != fold])
        return margin_P


def best_margin(said_P: Ints, difference_P: Floats) -> float:
    """Return the smallest tie margin with the highest accuracy; 0 without items."""
    size_P = np.abs(difference_P)
    right_P = said_P == np.where(difference_P > 0, 0, 1)
    order = np.argsort(size_P, kind="stable")
    # At a margin of size_P[order][i] the first i + 1 items are ties, the rest are decided.
    gained_P = np.cumsum((said_P == TIE)[order]) - np.cumsum(right_P[order])
    size_P = size_P[order]
    last_P = np.append(size_P[1:] != size_P[:-1], True) if len(size_P) else np.zeros(0, dtype=np.bool_)
    margins, gains = np.append(0.0, size_P[last_P]), np.append(_gain_at_zero(size_P, gained_P), gained_P[last_P])
    return float(margins[np.argmax(gains)])


def _gain_at_zero(size_P: Floats, gained_P: Ints) -> int:
    zeros = int(np.searchsorted(size_P, 0.0, side="right"))
    return int(gained_P[zeros - 1]) if zeros else 0


def pandalm_scores(cell: JudgedCell) -> list[OfficialScore]:
    """Return accuracy and macro F1 against what most of the annotators said, ties included.

    As in its paper's table (arXiv 2306.05087), whose recall differs from its accuracy: it averages over the labels 1,
    2 and tie. All labels of one item are one verdict; an item without a majority is left out. [] without metadata.
    """

    def item(label: _Label) -> tuple[str, int | None]:
        return str(label.meta.get("item") or label.label_id), _MAJORITY.get(str(label.meta.get("majority")))

    if (found := _verdicts(cell, item)) is None:
        return []
    return [
        OfficialScore(f"PandaLM {metric}{name}", value(found, verdict_P), len(verdict_P))
        for name, verdict_P in _by_margin(found)
        for metric, value in (("accuracy", _accuracy), ("macro F1", _macro_f1))
    ]


def autoj_scores(cell: JudgedCell) -> list[OfficialScore]:
    """Return the agreement with people's verdicts, ties included (arXiv 2310.05470); [] without metadata.

    Its consistency under swapped responses is 1 for a judge that sees one response at a time.
    """
    if (found := _verdicts(cell, lambda label: (label.label_id, label.said))) is None:
        return []
    return [
        OfficialScore(f"Auto-J agreement{name}", _accuracy(found, verdict_P), len(verdict_P))
        for name, verdict_P in _by_margin(found)
    ]


@dataclass(frozen=True, slots=True)
class _Label:
    """One labelled pair of a cell, and which row of its block it is."""

    label_id: str
    meta: Mapping[str, Any]
    said: int
    cluster: int


def _verdicts(cell: JudgedCell, item: Callable[[_Label], tuple[str, int | None]]) -> TieVerdicts | None:
    """Return the cell's items: `item` says to which one a label belongs and what people said of that."""
    blocks: tuple[JudgedCell | TiedPairs | None, ...] = (cell, cell.tied)
    labels: list[_Label] = []
    sides: list[SideScores] = []
    for block in blocks:
        if block is None or block.facts is None:
            continue
        said = block.preferred_P.tolist() if isinstance(block, JudgedCell) else [TIE] * len(block.label_id_P)
        labels += map(_Label, block.label_id_P, block.facts.meta_P, said, block.cluster_P.tolist())
        sides.append(sides_of_samples(block.score_P2K, block.asked_P2))
    if not labels:
        return None
    return _by_item([item(label) for label in labels], [label.cluster for label in labels], sides)


def _by_item(
    items: Sequence[tuple[str, int | None]], clusters: Sequence[int], sides: Sequence[SideScores]
) -> TieVerdicts:
    """Bring the labels of one item together: their answers are answers about the same two responses."""
    names = {name: number for number, name in enumerate(dict.fromkeys(name for name, _ in items))}
    item_R = np.array([names[name] for name, _ in items])
    units_P2, parsed_P2, asked_P2 = (
        _summed(np.concatenate([getattr(block, name) for block in sides]), item_R, len(names))
        for name in ("units_P2", "parsed_P2", "asked_P2")
    )
    mean_P2 = SideScores(units_P2, parsed_P2, asked_P2).means()
    said_P = np.zeros(len(names), dtype=np.int64)
    said_P[item_R] = [-1 if said is None else said for _, said in items]
    cluster_P = np.zeros(len(names), dtype=np.int64)
    cluster_P[item_R] = clusters
    kept_P = said_P >= 0
    difference_P = np.nan_to_num(mean_P2[:, 0] - mean_P2[:, 1])
    return TieVerdicts(said_P[kept_P], difference_P[kept_P], cluster_P[kept_P])


def _summed(value_R2: Ints, item_R: Ints, n_items: int) -> Ints:
    total_P2 = np.zeros((n_items, 2), dtype=np.int64)
    np.add.at(total_P2, item_R, value_R2)
    return total_P2


def _by_margin(found: TieVerdicts) -> Iterator[tuple[str, Ints]]:
    """Yield (suffix of the score's name, verdict_P) for the three margins, the honest one first."""
    yield " (fitted tie margin)", found.verdict_P(found.fitted_margin_P())
    yield " (no tie margin)", found.verdict_P(0.0)
    yield " (best tie margin)", found.verdict_P(best_margin(found.said_P, found.difference_P))


def _accuracy(found: TieVerdicts, verdict_P: Ints) -> float:
    return float(np.mean(found.said_P == verdict_P)) if len(verdict_P) else float("nan")


def _macro_f1(found: TieVerdicts, verdict_P: Ints) -> float:
    """Return the mean F1 of those labels that people or the judge gave; a label never met by both is 0."""
    counts_33 = np.zeros((3, 3))
    np.add.at(counts_33, (found.said_P, verdict_P), 1)
    met_3 = counts_33.sum(0) + counts_33.sum(1)
    f1_3 = 2 * np.diag(counts_33)[met_3 > 0] / met_3[met_3 > 0]
    return float(f1_3.mean()) if len(f1_3) else float("nan")
