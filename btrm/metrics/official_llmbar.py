"""LLMBar's scores: the accuracy on each of its five sets, and their averages.

Zeng et al., "Evaluating Large Language Models at Evaluating Instruction Following" (arXiv 2310.07641): its table has
the sets Natural and the four adversarial ones, the average of those four, and that of all five, sets weighing alike.
A tie counts one half, as a judge that names a side by chance would get; so does a pair with an unparsed side.
"""

from __future__ import annotations

import numpy as np

from btrm.metrics.judged import JudgedCell
from btrm.metrics.official_score import OfficialScore, mean_of, named, weighted_sum, with_mean

_NATURAL = "Natural"
_ADVERSARIAL = ("Neighbor", "GPTInst", "GPTOut", "Manual")
_PUBLISHED = 419  # pairs in the five sets


def llmbar_scores(cell: JudgedCell) -> list[OfficialScore]:
    """Return the average of the five sets, the adversarial one, and each set's accuracy; [] without metadata.

    Sets that are not LLMBar's own (its case study's) have a figure each and are in no average.
    """
    if cell.facts is None or not len(cell.preferred_P):
        return []
    credit_P = cell.outcomes(1.0, "tie", (0.0, 1.0)).credit_P
    subset_P = np.array(cell.facts.subset_P)
    sets = {name: mean_of(credit_P, subset_P == name) for name in (_NATURAL, *_ADVERSARIAL)}
    others = [name for name in dict.fromkeys(cell.facts.subset_P) if name not in sets]
    found = with_mean("LLMBar", sets, cell.cluster_P, _PUBLISHED)
    adversarial = weighted_sum([(1 / len(_ADVERSARIAL), sets[name]) for name in _ADVERSARIAL])
    scores = found[:1] + named("LLMBar adversarial", adversarial, cell.cluster_P) + found[1:]
    for name in others:
        scores += named(f"LLMBar {name or 'other'}", mean_of(credit_P, subset_P == name), cell.cluster_P)
    return scores
