"""Auto-J's pairwise test: two responses to a real query in one of 58 scenarios, and which one people preferred.

Li et al., "Generative Judge for Evaluating Alignment" (arXiv 2310.05470). Files: `testdata_pairwise.jsonl` of the
repository GAIR-NLP/auto-j, and its Chinese translation. Labels are 0, 1 and 2, a tie. Every row becomes a pair, equal
and empty responses too: its score counts them all.
"""

from __future__ import annotations

from collections.abc import Iterator

from btrm.data.fields import asked, fields, file_rows, one_of, read_each, text
from btrm.data.items import Item, Occurrences, Query
from btrm.data.reading import SourceRow

SOURCE = "autoj"


def autoj(query: Query) -> Iterator[Item]:
    """Yield the pairs in the order of the files; the scenario is the subset."""
    seen = Occurrences()

    def read(row: SourceRow) -> Iterator[Item]:
        preferred = one_of(row, "label", {0: 0, 1: 1, 2: None})
        responses = (text(row, "response 1").strip(), text(row, "response 2").strip())
        meta = {"benchmark": SOURCE, "subset": str(fields(row).get("scenario") or "")}
        yield seen.pair(asked(text(row, "prompt")), responses, preferred, source=SOURCE, split=query.split, meta=meta)

    return read_each(file_rows(query, SOURCE), read)
