"""From answers to rows: what a share owes, what an answer fills, and the parts that are written of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from btrm.judges.cells import Cell
from btrm.judges.numbered import Pairs
from btrm.judges.rule import RULES
from btrm.publishing import win
from btrm.records import Judgement, PreferencePair, write_judgements
from btrm.runs import StageRun
from btrm.scores import Outcome, without_tags
from btrm.teacher.base import Item, RowKey
from btrm.teacher.journal import Entry, Forgotten
from btrm.teacher.reading import Verdict, verdicts

PairsOf = Callable[[Item], Sequence[PreferencePair]]


class Owed:
    """The rows that a share owes: both sides x n_samples of each pair.

    `records` are the pairs by number; a part holds those of them that lie in [k, k + 1) * part_pairs, and
    is written when all of these have their rows. A pair that several people labelled is asked about once, and the
    answer fills the rows of all its labels; a rule's answers are each label's own, as a judge's are.
    """

    def __init__(self, cell: Cell, pairs: Pairs, records: Mapping[int, PreferencePair], part_pairs: int) -> None:
        self._cell = cell
        self._pairs = pairs
        self._records = records
        self._part_pairs = part_pairs
        self._numbers = {pair.label_id: number for number, pair in records.items()}
        self._left = dict.fromkeys(sorted(records), 2 * cell.n_samples)
        self._rows: dict[RowKey, Judgement] = {}
        self._by_label = cell.judge.partition(":")[0] in RULES
        self._sharing: dict[str, list[int]] = defaultdict(list)
        for number, pair in records.items():
            self._sharing[self._shared(pair)].append(number)
        self._open: dict[int, list[int]] = defaultdict(list)
        for number in self._left:
            self._open[number // part_pairs].append(number)

    def missing(self) -> Iterator[RowKey]:
        """Yield the rows that nobody has answered, in the pairs' order; of those that share an answer, the first."""
        asked: set[RowKey] = set()
        for number, left in list(self._left.items()):
            for side, sample in product((0, 1), range(self._cell.n_samples)) if left else ():
                pair = self._records[number]
                answer = (self._shared(pair), side, sample)
                if answer not in asked and (pair.label_id, side, sample) not in self._rows:
                    asked.add(answer)
                    yield pair.label_id, side, sample

    def fill(self, entry: Entry, without: Collection[Forgotten] = ()) -> int:
        """Take the rows of an answer that are still owed; return how many pairs they complete."""

        def counts_for(item: Item) -> list[PreferencePair]:
            gone = (entry.request_hash, entry.at, item.label_id, item.side, entry.sample) in without
            return [] if gone else [self._records[number] for number in self._sharing.get(self._shared(item), ())]

        completed = 0
        for row in judgements(entry, self._cell, counts_for):
            key = (row.label_id, row.side, row.sample)
            number = self._numbers[row.label_id]
            if key not in self._rows and self._left[number] and row.sample < self._cell.n_samples:
                self._rows[key] = row
                self._left[number] -= 1
                completed += not self._left[number]
        return completed

    def _shared(self, asked: PreferencePair | Item) -> str:
        """Return what an answer is about: the same for all labels that it counts for."""
        return asked.label_id if self._by_label else asked.pair_id

    def write_parts(self, run: StageRun, directory: Path) -> None:
        """Win a part for each stretch of pairs that is whole."""
        for place, numbers in list(self._open.items()):
            if not any(self._left[number] for number in numbers):
                self._write(run, directory, numbers)
                del self._open[place]

    def write_rest(self, run: StageRun, directory: Path) -> None:
        """Win parts for the complete pairs of unfinished stretches: the share ends before its time."""
        for numbers in self._open.values():
            if done := [number for number in numbers if not self._left[number]]:
                self._write(run, directory, done)

    def _write(self, run: StageRun, directory: Path, numbers: list[int]) -> None:
        labels = [self._records[number].label_id for number in numbers]
        keys = ((label, side, sample) for label in labels for side in (0, 1) for sample in range(self._cell.n_samples))
        scratch = run.scratch("part.parquet")
        write_judgements(scratch, [self._rows.pop(key) for key in keys])
        win(scratch, directory / self._pairs.part_name(self._cell, labels))


def judgements(entry: Entry, cell: Cell, pairs_of: PairsOf) -> Iterator[Judgement]:
    """Yield an answer's rows, of the pairs that `pairs_of` says an item counts for.

    A call's tokens and cost are shared by its items, and stand in the rows of the labels that were asked for.
    """
    found = verdicts(entry, cell.prompt.scale)
    for place, (item, verdict) in enumerate(zip(entry.items, found, strict=True)):
        for pair in pairs_of(item):
            row = _judgement(entry, cell, pair, place, verdict)
            asked = pair.label_id == item.label_id
            yield row if asked else replace(row, prompt_tokens=0, completion_tokens=0, cost_usd=row.cost_usd and 0.0)


def _judgement(entry: Entry, cell: Cell, pair: PreferencePair, place: int, verdict: Verdict) -> Judgement:
    item, size = entry.items[place], len(entry.items)
    return Judgement(
        label_id=pair.label_id,
        pair_id=pair.pair_id,
        side=item.side,
        sample=entry.sample,
        preferred_side=pair.preferred,
        split=pair.split,
        judge=cell.judge,
        model_hash=cell.model_hash,
        adapter_hash=cell.adapter_hash,
        prompt=cell.prompt.name,
        method=cell.method,
        seed=cell.seed,
        completion=_completion(entry, verdict, cell),
        score=verdict.score.value,
        outcome=str(verdict.score.outcome),
        finish_reason=entry.finish_reason,
        prompt_tokens=_part(entry.usage.prompt, size, place),
        completion_tokens=_part(entry.usage.output, size, place),
        layout=entry.layout,
        shown_first=item.shown_first,
        cost_usd=None if entry.usd is None else entry.usd / size,
        request_hash=entry.request_hash,
    )


def _completion(entry: Entry, verdict: Verdict, cell: Cell) -> str:
    """Return the answer in the style of the prompt; what holds no score is kept as it was, without its tags.

    A prompt for the tag alone has its analysis before the tag: other students may want to learn from it.
    """
    if verdict.score.outcome == Outcome.SCORED and verdict.score.value is not None:
        told = replace(cell.prompt, style="reason_first") if cell.prompt.style == "score_only" else cell.prompt
        return told.target(verdict.score.value, without_tags(verdict.analysis))
    return without_tags(verdict.analysis or entry.text)


def _part(total: int, size: int, place: int) -> int:
    """Return a whole share of a count; the shares add up to it."""
    return total * (place + 1) // size - total * place // size
