"""LLMBar: two outputs for an instruction, of which one follows it and the other only looks as if it did.

Zeng et al., "Evaluating Large Language Models at Evaluating Instruction Following" (arXiv 2310.07641). Files: the
`dataset.json` of the repository princeton-nlp/LLMBar; the folder (`Natural`, `Adversarial/GPTInst`, ...) or the file's
name says which subset it is. On the hub there is only a script. Every row becomes a pair: its score counts them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from btrm.data.fields import asked, drop, file_rows, one_of, read_each, text
from btrm.data.groups import choice_of
from btrm.data.items import Item, Occurrences, Query
from btrm.data.reading import SourceRow

SOURCE = "llmbar"
NATURAL = "Natural"
ADVERSARIAL = ("Neighbor", "GPTInst", "GPTOut", "Manual")
# The four parts of its case study and the sets that its authors brought into the same form.
_OTHERS = ("Constraint", "Negation", "Normal", "Base_9", "Base_10", "FairEval", "LLMEval^2", "MT-Bench")
_SUBSETS = {name.lower(): name for name in (NATURAL, *ADVERSARIAL, *_OTHERS)}
_CHOICES = {"natural": (NATURAL,), "adversarial": ADVERSARIAL}


def llmbar(query: Query) -> Iterator[Item]:
    """Yield the pairs; option `subset` is natural, adversarial or all (default)."""
    chosen = choice_of(query, SOURCE, "subset", "all", (*_CHOICES, "all"))
    seen = Occurrences()

    def read(row: SourceRow) -> Iterator[Item]:
        subset = subset_of(row.where)
        if chosen == "all" or subset in _CHOICES[chosen]:
            yield _pair(row, subset, query.split, seen)
        else:
            yield drop(row, f"subset_{subset or 'unknown'}", f"the option subset is {chosen}")

    return read_each(file_rows(query, SOURCE), read)


def subset_of(where: str) -> str:
    """Return the subset that a row's file belongs to, by the names of the file and of its folders; "" for none."""
    parts = Path(where.rpartition(":")[0]).parts
    names = [parts[-1].split(".")[0], *reversed(parts[:-1])] if parts else []
    return next((_SUBSETS[name.lower()] for name in names if name.lower() in _SUBSETS), "")


def _pair(row: SourceRow, subset: str, split: str, seen: Occurrences) -> Item:
    preferred = one_of(row, "label", {1: 0, 2: 1})
    responses = (text(row, "output_1").strip(), text(row, "output_2").strip())
    meta = {"benchmark": SOURCE, "subset": subset}
    return seen.pair(asked(text(row, "input")), responses, preferred, source=SOURCE, split=split, meta=meta)
