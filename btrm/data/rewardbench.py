"""RewardBench: one good and one bad response to each of 2,985 prompts, in 23 subsets of four sections.

Lambert et al. 2024 (arXiv 2403.13787), github.com/allenai/reward-bench. Hub: `allenai/reward-bench` (ODC-BY), split
`filtered`, which is our `test`. Columns: prompt, chosen, chosen_model, rejected, rejected_model, subset, id.
"""

from __future__ import annotations

from collections.abc import Iterator

from btrm.data.fields import asked, column, rows_of, text
from btrm.data.groups import Benchmark, Group, crossed, optional, subset_of
from btrm.data.items import Item, Query
from btrm.data.reading import SourceRow
from btrm.hub import HubItem
from btrm.metrics.official_rewardbench import REWARDBENCH

SOURCE = "rewardbench"
HUB = HubItem("dataset", "allenai/reward-bench", files=("data/*", "README.md"))
SECTIONS = {subset: section for section, subsets in REWARDBENCH.items() for subset in subsets}
# How many prompts there are; as weights, the 447 of math-prm count 984.
SIZES = {subset: size for subsets in REWARDBENCH.values() for subset, size in subsets.items()} | {"math-prm": 447}


def rewardbench(query: Query) -> Iterator[Item]:
    """Yield one pair a prompt, in the order of the source."""
    benchmark = Benchmark(SOURCE, query.split, crossed, SIZES)
    return benchmark.read(rows_of(query, HUB, None, "filtered"), _group)


def _group(row: SourceRow) -> Group:
    subset = subset_of(row, SIZES)
    meta = {"section": SECTIONS[subset], **optional(row, "chosen_model", "rejected_model")}
    chosen, rejected = text(row, "chosen"), text(row, "rejected")
    return Group(str(column(row, "id")), subset, asked(column(row, "prompt")), (chosen,), (rejected,), meta)
