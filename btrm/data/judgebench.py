"""JudgeBench: two answers to a hard question, one right and one wrong, both of one model.

Tan et al. 2024 (arXiv 2410.12784), github.com/ScalerLab/JudgeBench. Hub: `ScalerLab/JudgeBench` (MIT), splits `gpt`
(350 pairs of GPT-4o's answers) and `claude` (270 of Claude 3.5 Sonnet's); ours is `test`. Columns: pair_id,
original_id, source, question, response_model, response_A, response_B, label (A>B or B>A).

Option `responses`: `gpt` (default, what the paper's main table is of), `claude` or `all`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from btrm.data.fields import RowError, asked, column, drop, read_each, rows_of, text
from btrm.data.groups import Benchmark, choice_of, crossed, optional
from btrm.data.items import Item, Occurrences, Query
from btrm.data.reading import SourceRow
from btrm.hub import HubItem

SOURCE = "judgebench"
HUB = HubItem("dataset", "ScalerLab/JudgeBench", files=("data/*", "README.md"))
SIZES = {"gpt": 350, "claude": 270}
_LABELS = {"A>B": 0, "B>A": 1}


def judgebench(query: Query) -> Iterator[Item]:
    """Yield one pair a row, in the order of the source; the two answers stay on their sides."""
    wanted = choice_of(query, SOURCE, "responses", "gpt", (*SIZES, "all"))
    splits = tuple(SIZES) if wanted == "all" else (wanted,)
    rows = rows_of(query, HUB, None, "") if query.data_files else chain(*(rows_of(query, HUB, None, s) for s in splits))
    benchmark = Benchmark(SOURCE, query.split, crossed, {split: SIZES[split] for split in splits})

    def read(row: SourceRow) -> list[Item]:
        model = text(row, "response_model")
        of_split = [split for split in splits if model.startswith(split)]
        if not of_split:
            return [drop(row, f"responses_{model}", f"the option responses is {wanted}")]
        pair = _pair(row, query.split, benchmark.seen)
        benchmark.count(of_split[0])
        return [pair]

    yield from read_each(rows, read)
    benchmark.check_whole()


def _pair(row: SourceRow, split: str, seen: Occurrences) -> Item:
    label = column(row, "label")
    if not isinstance(label, str) or label not in _LABELS:
        raise RowError(f"'label': expected {' or '.join(_LABELS)}, got {label!r:.80}")
    context, first, second = asked(text(row, "question")), *(text(row, f"response_{x}").strip() for x in "AB")
    if not context or not first or not second:
        return drop(row, "empty_text", "the question or a response is empty")
    if first == second:
        return drop(row, "identical_responses", "the two responses are equal")
    group = {"group": text(row, "pair_id"), "group_size": 1, "chosen_index": 0, "rejected_index": 0}
    meta = {"benchmark": SOURCE, "subset": text(row, "source"), **group, **optional(row, "response_model")}
    return seen.pair(context, (first, second), _LABELS[label], source=SOURCE, split=split, meta=meta)
