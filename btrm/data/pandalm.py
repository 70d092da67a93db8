"""PandaLM's test set: two models' responses to an instruction, compared by three annotators (1, 2, or 0 for a tie).

Wang et al., "PandaLM: An Automatic Evaluation Benchmark for LLM Instruction Tuning Optimization" (arXiv 2306.05087).
Files: `testset-v1.json` of the repository WeOpenML/PandaLM. Each annotator's label is a labelled pair; what most of
them said is in its metadata, since the official score is against that. Every row becomes pairs, empty responses too.
Six responses are the JSON value true, what a spreadsheet made of the text: they are read as `True`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from btrm.data.fields import RowError, asked, column, drop, fields, file_rows, one_of, read_each, text
from btrm.data.groups import choice_of
from btrm.data.items import Item, Occurrences, Query
from btrm.data.reading import SourceRow

SOURCE = "pandalm"
_LABELS = {0: None, 1: 0, 2: 1}


def pandalm(query: Query) -> Iterator[Item]:
    """Yield labelled pairs in the order of the files; option `labels` is each (default) or majority.

    `majority` has one pair an item, with the label of most annotators: a third of the work for a judge, and the same
    official score. Items without a majority are dropped, counted.
    """
    wanted = choice_of(query, SOURCE, "labels", "each", ("each", "majority"))
    make = _by_annotator if wanted == "each" else _by_majority
    seen = Occurrences()
    return read_each(file_rows(query, SOURCE), lambda row: make(_item(row), query.split, seen))


def majority(labels: Sequence[int | None]) -> int | None:
    """Return what more than half of the annotators said (0, 1, None for a tie); ValueError where they all differ."""
    label, count = Counter(labels).most_common(1)[0]
    if 2 * count <= len(labels):
        raise ValueError(f"no label has a majority among {list(labels)}")
    return label


class _Item(NamedTuple):
    """One row: two responses, and what each annotator said of them."""

    row: SourceRow
    context: str
    responses: tuple[str, str]
    labels: Mapping[str, int | None]
    meta: Mapping[str, Any]


def _item(row: SourceRow) -> _Item:
    names = [name for name in fields(row) if name.startswith("annotator")]
    if not names:
        raise RowError("no column 'annotator1'; a row has one a person who compared the responses")
    labels = {name: one_of(row, name, _LABELS) for name in names}
    meta = {"benchmark": SOURCE, "subset": _shown(row, "cmp_key"), "app": _shown(row, "motivation_app")}
    meta |= {"item": _shown(row, "idx"), "majority": _majority_side(list(labels.values()))}
    return _Item(row, _context(row), (_response(row, "response1"), _response(row, "response2")), labels, meta)


def _by_annotator(item: _Item, split: str, seen: Occurrences) -> Iterator[Item]:
    for name, preferred in item.labels.items():
        meta = {**item.meta, "annotator": name}
        yield seen.pair(item.context, item.responses, preferred, source=SOURCE, split=split, label=name, meta=meta)


def _by_majority(item: _Item, split: str, seen: Occurrences) -> Iterator[Item]:
    try:
        preferred = majority(list(item.labels.values()))
    except ValueError as error:
        yield drop(item.row, "no_majority", str(error))
        return
    yield seen.pair(item.context, item.responses, preferred, source=SOURCE, split=split, meta=item.meta)


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
