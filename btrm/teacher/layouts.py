"""How pairs become calls, and how a reply becomes a score and an analysis for each of a call's items."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from btrm.records import PreferencePair, stable_hash
from btrm.scores import Outcome, Scale, Score, read_numeral
from btrm.teacher.base import Call, Item, RowKey
from btrm.teacher.config import TeacherConfig
from btrm.teacher.journal import Entry


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reply says about one item; `analysis` is its reasoning, as the teacher wrote it."""

    score: Score
    analysis: str


def make_calls(
    config: TeacherConfig, pairs: Mapping[int, PreferencePair], missing: Collection[RowKey]
) -> Iterator[Call]:
    """Yield the calls that ask for the missing rows, those of one pair side by side."""
    del config
    asked = set(missing)
    for pair in pairs.values():
        for side in (0, 1):
            for sample in range(1 << 30):
                if (pair.label_id, side, sample) not in asked:
                    break
                mark = stable_hash(pair.label_id, str(side), str(sample))
                item = Item(pair.label_id, pair.pair_id, side, mark)
                yield Call((item,), sample, "pointwise", "tags", "", pair.context, pair.responses[side], None, 0)


def verdicts(entry: Entry, scale: Scale) -> list[Verdict]:
    """Return a verdict for each item of an answer, in their order. Never raises: a bad answer is an outcome."""
    return [
        Verdict(Score(None, Outcome.UNPARSED) if not entry.text else read_numeral(entry.text, scale), "")
        for _ in entry.items
    ]
