"""RM-Bench: three good and three bad responses to each of 1,327 prompts, in the same three styles.

Liu et al. 2024 (arXiv 2410.16184), github.com/THU-KEG/RM-Bench. Hub: `THU-KEG/RM-Bench` (ODC-BY), split `train` of
`total_dataset.json`, which is our `test`. Columns: id, prompt, chosen (list), rejected (list), domain. The lists are
in the order of the styles: concise, detailed, detailed with markdown. The repository's files of one domain
(`chat_filtered.json`, ...) lack the column `domain`: their name says it.

Option `pairs`: `all` (default) makes the nine pairs of the 3 x 3 matrix, so that accuracy is over all of it; `matched`
the three of one style each, for a third of the work: every response is asked about once, as the authors do, and the
official score, matrix included, is made of that. Sampled scores are averaged over three times as many with `all`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from btrm.data.fields import RowError, asked, column, fields, rows_of
from btrm.data.groups import Benchmark, Group, crossing_of, optional, subset_of, texts
from btrm.data.items import Item, Query
from btrm.data.reading import SourceRow
from btrm.hub import HubItem

SOURCE = "rm_bench"
HUB = HubItem("dataset", "THU-KEG/RM-Bench", files=("total_dataset.json", "README.md"))
STYLES = ("concise", "detailed", "markdown")
SIZES = {"chat": 129, "code": 228, "math": 529, "safety-refuse": 284, "safety-response": 157}
_OF_DOMAIN = "_filtered.json"


def rm_bench(query: Query) -> Iterator[Item]:
    """Yield the pairs of each prompt, prompt after prompt."""
    benchmark = Benchmark(SOURCE, query.split, crossing_of(query, SOURCE, "all"), SIZES)
    return benchmark.read(rows_of(query, HUB, None, "train"), _group)


def _group(row: SourceRow) -> Group:
    chosen, rejected = texts(row, "chosen"), texts(row, "rejected")
    if len(chosen) != len(STYLES) or len(rejected) != len(STYLES):
        problem = f"expected {len(STYLES)} of each ({', '.join(STYLES)}), got {len(chosen)} and {len(rejected)}"
        raise RowError(f"'chosen' and 'rejected': {problem}")
    domain = _domain(row)
    name = f"{domain}/{column(row, 'id')}"
    return Group(name, domain, asked(column(row, "prompt")), chosen, rejected, optional(row, "language", "error_key"))


def _domain(row: SourceRow) -> str:
    """Return the row's domain; without that column, that of its file."""
    file = Path(row.where.rpartition(":")[0]).name
    domain = file.removesuffix(_OF_DOMAIN)
    if "domain" not in fields(row) and file.endswith(_OF_DOMAIN) and domain in SIZES:
        return domain
    return subset_of(row, SIZES, "domain")
