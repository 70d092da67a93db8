"""LLMBar's scores: the accuracy on each of its five sets, and their averages.

Zeng et al., "Evaluating Large Language Models at Evaluating Instruction Following" (arXiv 2310.07641): its table has
the sets Natural and the four adversarial ones, the average of those four, and that of all five, sets weighing alike.
A tie counts one half, as a judge that names a side by chance would get; so does a pair with an unparsed side.
"""

from __future__ import annotations

import numpy as np

from btrm.metrics.judged import JudgedCell
from btrm.metrics.official_score import OfficialScore

_NATURAL = "Natural"
_ADVERSARIAL = ("Neighbor", "GPTInst", "GPTOut", "Manual")


def llmbar_scores(cell: JudgedCell) -> list[OfficialScore]:
    """Return the averages that the judged sets allow, then each set's accuracy; [] without metadata."""
    if cell.facts is None or not len(cell.preferred_P):
        return []
    credit_P = cell.outcomes(1.0, "tie", (0.0, 1.0)).credit_P
    subset_P = np.array(cell.facts.subset_P)
    sets = {name: credit_P[subset_P == name] for name in dict.fromkeys(cell.facts.subset_P)}
    parts = {
        "LLMBar": [sets.get(name) for name in (_NATURAL, *_ADVERSARIAL)],
        "LLMBar adversarial": [sets.get(name) for name in _ADVERSARIAL],
    }
    scores = [
        OfficialScore(name, float(np.mean([np.mean(part) for part in found])), sum(map(len, found)))
        for name, part in parts.items()
        if len(found := [credit for credit in part if credit is not None]) == len(part)
    ]
    each = [
        OfficialScore(f"LLMBar {name or 'without a subset'}", float(np.mean(part)), len(part))
        for name, part in sets.items()
    ]
    return scores + each
