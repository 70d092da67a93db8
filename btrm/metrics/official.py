"""The scores that benchmarks themselves define, from a cell's answers; each function states its definition and source.

A response's score is the mean of all its scored answers: over samples, and over the pairs in which it stands. Only
whole prompts count: one of which pairs were not judged (`--n-pairs`) is left out, and `n` says how many there are.
"""

from __future__ import annotations

from collections.abc import Callable

from btrm.metrics.judged import JudgedCell
from btrm.metrics.official_groups import judgebench_scores, rm_bench_scores, rmb_scores
from btrm.metrics.official_llmbar import llmbar_scores
from btrm.metrics.official_rewardbench import rewardbench2_scores, rewardbench_scores
from btrm.metrics.official_score import OfficialScore
from btrm.metrics.official_ties import autoj_scores, pandalm_scores

OFFICIAL: dict[str, Callable[[JudgedCell], list[OfficialScore]]] = {
    "rewardbench": rewardbench_scores,
    "rewardbench2": rewardbench2_scores,
    "rm_bench": rm_bench_scores,
    "rmb": rmb_scores,
    "judgebench": judgebench_scores,
    "llmbar": llmbar_scores,
    "pandalm": pandalm_scores,
    "autoj": autoj_scores,
}


def official_scores(cell: JudgedCell) -> list[OfficialScore]:
    """Return a benchmark's own scores, its headline first; [] for data that is of none, or of several."""
    score = OFFICIAL.get(cell.facts.benchmark) if cell.facts is not None else None
    return score(cell) if score is not None else []
