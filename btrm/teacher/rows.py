"""From answers to rows: what a share owes, what an answer fills, and the parts that are written of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from btrm.judges.cells import Cell
from btrm.judges.numbered import Pairs
from btrm.records import Judgement, PreferencePair, write_judgements
from btrm.runs import StageRun, win
from btrm.scores import Outcome, without_tags
from btrm.teacher.base import RowKey
from btrm.teacher.journal import Entry, Forgotten
from btrm.teacher.reading import Verdict, verdicts

PairOf = Callable[[str], PreferencePair | None]


class Owed:
    """The rows that a share owes: both sides x n_samples of each pair.

    `records` are the pairs by number; a part holds those of them that lie in [k, k + 1) * part_pairs, and
    is written when all of these have their rows.
    """

    def __init__(self, cell: Cell, pairs: Pairs, records: Mapping[int, PreferencePair], part_pairs: int) -> None:
        self._cell = cell
        self._pairs = pairs
        self._records = records
        self._part_pairs = part_pairs
        self._numbers = {pair.label_id: number for number, pair in records.items()}
        self._left = dict.fromkeys(sorted(records), 2 * cell.n_samples)
        self._rows: dict[RowKey, Judgement] = {}
        self._open: dict[int, list[int]] = defaultdict(list)
        for number in self._left:
            self._open[number // part_pairs].append(number)

    def missing(self) -> Iterator[RowKey]:
        """Yield the rows that nobody has answered, in the pairs' order."""
        samples = range(self._cell.n_samples)
        for number, left in list(self._left.items()):
            label = self._records[number].label_id
            keys = ((label, side, sample) for side in (0, 1) for sample in samples) if left else ()
            yield from (key for key in keys if key not in self._rows)

    def fill(self, entry: Entry, without: Collection[Forgotten] = ()) -> int:
        """Take the rows of an answer that are still owed; return how many pairs they complete."""
        completed = 0
        for row in judgements(entry, self._cell, self._pair):
            key = (row.label_id, row.side, row.sample)
            if (entry.request_hash, entry.at, *key) in without:
                continue
            number = self._numbers[row.label_id]
            if key not in self._rows and self._left[number] and row.sample < self._cell.n_samples:
                self._rows[key] = row
                self._left[number] -= 1
                completed += not self._left[number]
        return completed

    def _pair(self, label_id: str) -> PreferencePair | None:
        number = self._numbers.get(label_id)
        return None if number is None else self._records[number]

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


def judgements(entry: Entry, cell: Cell, pair_of: PairOf) -> Iterator[Judgement]:
    """Yield an answer's rows, of the pairs that `pair_of` knows; a call's tokens and cost are shared by its items."""
    size = len(entry.items)
    for place, (item, verdict) in enumerate(zip(entry.items, verdicts(entry, cell.prompt.scale), strict=True)):
        if (pair := pair_of(item.label_id)) is None:
            continue
        yield Judgement(
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
