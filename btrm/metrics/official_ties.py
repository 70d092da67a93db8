"""Official scores of sets whose people may call a tie: PandaLM and Auto-J. How a judge calls one: `tie_margin.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from btrm.metrics.judged import JudgedCell, TiedPairs
from btrm.metrics.official_score import OfficialScore, named
from btrm.metrics.pairwise import Ints, SideScores, sides_of_samples
from btrm.metrics.tie_margin import TIE, TieVerdicts, accuracy, macro_f1

_MAJORITY = {"0": 0, "1": 1, "tie": TIE}


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
        score
        for name, verdict_P in found.by_margin()
        for metric, estimate in (("accuracy", accuracy), ("macro F1", macro_f1))
        for score in named(f"PandaLM {metric} ({name})", estimate(found.said_P, verdict_P), found.cluster_P)
    ]


def autoj_scores(cell: JudgedCell) -> list[OfficialScore]:
    """Return the agreement with people's verdicts, ties included (arXiv 2310.05470); [] without metadata.

    Its consistency under swapped responses is 1 for a judge that sees one response at a time.
    """
    if (found := _verdicts(cell, lambda label: (label.label_id, label.said))) is None:
        return []
    return [
        score
        for name, verdict_P in found.by_margin()
        for score in named(f"Auto-J agreement ({name})", accuracy(found.said_P, verdict_P), found.cluster_P)
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
