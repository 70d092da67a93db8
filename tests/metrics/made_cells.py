"""Cells of simulated judges, whose truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from btrm.metrics.judged import JudgedCell
from btrm.metrics.measured import Measured, Measuring
from btrm.metrics.pair_facts import PairFacts

Floats = NDArray[np.float64]
HOW = Measuring(bt_temp=20.0, unparsed="tie", folds=5, uncertain=(None, None))


def made_cell(
    score_P2K: Floats,
    preferred_P: NDArray[np.int64] | None = None,
    cluster_P: NDArray[np.int64] | None = None,
    facts: PairFacts | None = None,
    prompt: str = "toy_score100",
) -> JudgedCell:
    """A cell as it would be read; side 0 is preferred and each pair has a context of its own, where not said."""
    pairs, samples = len(score_P2K), score_P2K.shape[2]
    ids = [f"{number:08x}" for number in np.random.default_rng(3).permutation(pairs)]
    return JudgedCell(
        judge="sft",
        dataset="test",
        seed=0,
        prompt=prompt,
        method="sampled",
        label_id_P=[f"{name}-0" for name in ids],
        pair_id_P=ids,
        cluster_P=np.arange(pairs) if cluster_P is None else cluster_P,
        preferred_P=np.zeros(pairs, dtype=np.int64) if preferred_P is None else preferred_P,
        score_P2K=score_P2K,
        asked_P2=np.full((pairs, 2), samples),
        outcome_R=np.where(np.isnan(score_P2K), "unparsed", "scored").ravel(),
        label_ties=0,
        facts=facts,
        pair_R=np.repeat(np.arange(pairs), 2 * samples),
    )


def measured(score_P2K: Floats, how: Measuring = HOW, **others: Any) -> Measured:
    """A measured cell of these scores."""
    return Measured(made_cell(score_P2K, **others), how)


def from_margins(margin_P: Floats) -> Floats:
    """Scores of one sample a side with these margins (preferred less other), around the middle of the scale."""
    return np.stack([50 + margin_P / 2, 50 - margin_P / 2], 1)[:, :, None]
