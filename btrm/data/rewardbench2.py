"""RewardBench 2: a best-of-4 for each of 1,763 prompts in five subsets, and 102 prompts with several right answers.

Malik et al. 2025 (arXiv 2506.01937), github.com/allenai/reward-bench. Hub: `allenai/reward-bench-2` (ODC-BY), split
`test`. Columns: id, prompt, chosen (list), rejected (list), num_correct, num_incorrect, total_completions, models,
subset, additional_metadata. The prompts of Ties come in twos, with the ids `tied:N` and `ref:N`.

Option `pairs`: `matched` (default) has every response in at least one pair, which is all that the official score
needs; `all` compares every chosen with every rejected one, so that Ties, with its many answers, has most of the pairs.
"""

from __future__ import annotations

from collections.abc import Iterator

from btrm.data.fields import RowError, asked, column, rows_of
from btrm.data.groups import Benchmark, Group, crossing_of, subset_of, texts
from btrm.data.items import Item, Query
from btrm.data.reading import SourceRow
from btrm.hub import HubItem
from btrm.metrics.official_rewardbench import TIES

SOURCE = "rewardbench2"
HUB = HubItem("dataset", "allenai/reward-bench-2", files=("data/test-*", "README.md"))
SIZES = {"Factuality": 475, "Precise IF": 160, "Math": 183, "Safety": 450, "Focus": 495, TIES: 102}
_KINDS = ("tied", "ref")


def rewardbench2(query: Query) -> Iterator[Item]:
    """Yield the pairs of each prompt, prompt after prompt."""
    benchmark = Benchmark(SOURCE, query.split, crossing_of(query, SOURCE, "matched"), SIZES)
    return benchmark.read(rows_of(query, HUB, None, "test"), _group)


def _group(row: SourceRow) -> Group:
    subset, name = subset_of(row, SIZES), str(column(row, "id"))
    if subset == TIES and name.partition(":")[0] not in _KINDS:
        raise RowError(f"'id': expected tied:N or ref:N in subset {TIES}, got {name!r:.80}")
    return Group(name, subset, asked(column(row, "prompt")), texts(row, "chosen"), texts(row, "rejected"))
