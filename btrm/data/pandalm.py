"""PandaLM's test set: two models' responses to an instruction, compared by three annotators (1, 2, or 0 for a tie).

Wang et al., "PandaLM: An Automatic Evaluation Benchmark for LLM Instruction Tuning Optimization" (arXiv 2306.05087).
Files: `testset-v1.json` of the repository WeOpenML/PandaLM. Each annotator's label is a labelled pair; what most of
them said is in its metadata, since the official score is against that. Every row becomes pairs, empty responses too.
Six responses are the JSON value true, what a spreadsheet made of the text: they are read as `True`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from btrm.data.fields import RowError, asked, column, fields, file_rows, one_of, read_each, text
from btrm.data.items import Item, Occurrences, Query
from btrm.data.reading import SourceRow

SOURCE = "pandalm"
_LABELS = {0: None, 1: 0, 2: 1}


def pandalm(query: Query) -> Iterator[Item]:
    """Yield one labelled pair an annotator, in the order of the files."""
    seen = Occurrences()
    return read_each(file_rows(query, SOURCE), lambda row: _labels(row, query.split, seen))


def majority(labels: Sequence[int | None]) -> int | None:
    """Return what more than half of the annotators said (0, 1, None for a tie); ValueError where they all differ."""
    label, count = Counter(labels).most_common(1)[0]
    if 2 * count <= len(labels):
        raise ValueError(f"no label has a majority among {list(labels)}")
    return label


def _labels(row: SourceRow, split: str, seen: Occurrences) -> Iterator[Item]:
    names = [name for name in fields(row) if name.startswith("annotator")]
    if not names:
        raise RowError("no column 'annotator1'; a row has one a person who compared the responses")
    labels = {name: one_of(row, name, _LABELS) for name in names}
    responses = (_response(row, "response1"), _response(row, "response2"))
    context = _context(row)
    meta = {"benchmark": SOURCE, "subset": _shown(row, "cmp_key"), "app": _shown(row, "motivation_app")}
    meta |= {"item": _shown(row, "idx"), "majority": _majority_side(list(labels.values()))}
    for name, preferred in labels.items():
        said = {**meta, "annotator": name}
        yield seen.pair(context, responses, preferred, source=SOURCE, split=split, label=name, meta=said)


def _majority_side(labels: list[int | None]) -> str:
    """Return the majority as metadata: "0", "1", "tie", or "none" where there is none."""
    try:
        most = majority(labels)
    except ValueError:
        return "none"
    return "tie" if most is None else str(most)


def _context(row: SourceRow) -> str:
    parts = (text(row, "instruction").strip(), text(row, "input").strip())
    return asked("\n\n".join(part for part in parts if part))


def _response(row: SourceRow, name: str) -> str:
    value: Any = column(row, name)
    return str(value) if isinstance(value, bool) else text(row, name).strip()


def _shown(row: SourceRow, name: str) -> str:
    return str(fields(row).get(name, ""))
