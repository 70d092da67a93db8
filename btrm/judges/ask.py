"""Asking durably: what is missing by row key is asked, in parts that are each won once; what is there stays."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

from btrm.judges.base import Completion, Expectation, Judge, JudgeAnswer, JudgeRequest, make_request
from btrm.judges.cells import Cell
from btrm.judges.pair_sets import PairSets
from btrm.prompts import PromptSpec
from btrm.records import Judgement, PreferencePair, stable_hash, write_judgements
from btrm.runs import StageRun, win
from btrm.scores import Outcome, Score, parse_score
from btrm.stopping import safe_point
from btrm.work import Ranges


@dataclass(frozen=True, slots=True)
class Chunk:
    """Pairs of one cell, by number, that become one part."""

    cell: Cell
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Asking:
    """What asking needs beside the judge: where parts go, the pairs by number, and how many are asked about at once.

    `records` are the pairs that are asked about, {data set: {number: pair}}.
    """

    run: StageRun
    directory: Path
    sets: PairSets
    records: Mapping[str | None, Mapping[int, PreferencePair]]
    part_pairs: int

    def ask(self, judge: Judge, todo: Iterable[tuple[Cell, Ranges]]) -> Iterator[int]:
        """Ask about rows of cells; yield the number of pairs after each commit, where a stop loses nothing."""
        scratch = self.run.scratch("part.parquet")
        chunks = (chunk for cell, missing in todo for chunk in _chunks(cell, missing, self.part_pairs))
        safe_point()  # a model takes a while to load
        for batch in _batches(chunks, self.part_pairs):
            new = [chunk for chunk in batch if not self._path(chunk).exists()]
            if new:
                self._commit(judge, new, scratch)
                yield sum(len(chunk.numbers) for chunk in new)
            safe_point()

    def _path(self, chunk: Chunk) -> Path:
        pairs = self.sets.of(chunk.cell)
        return self.directory / pairs.part_name(chunk.cell, [pairs.labels[n] for n in chunk.numbers])

    def _commit(self, judge: Judge, chunks: Sequence[Chunk], scratch: Path) -> None:
        """Ask about several chunks at once, and win a part for each; ValueError where a judge gives too few answers."""
        of_chunks = [
            _requests(chunk.cell, [self.records[chunk.cell.dataset][n] for n in chunk.numbers]) for chunk in chunks
        ]
        requests = [request for of_chunk in of_chunks for request in of_chunk]
        answered = zip(requests, judge.ask(requests), strict=True)
        for chunk, of_chunk in zip(chunks, of_chunks, strict=True):
            pairs = islice(answered, len(of_chunk))
            write_judgements(scratch, (row for pair in pairs for row in _records(chunk.cell, *pair)))
            win(scratch, self._path(chunk))


def _chunks(cell: Cell, missing: Ranges, size: int) -> Iterator[Chunk]:
    """Cut at multiples of `size`, wherever a share begins: attempts at the same rows then meet in the same names."""
    numbers = (number for first, last in missing for number in range(first, last))
    for _, together in groupby(numbers, key=lambda number: number // size):
        yield Chunk(cell, tuple(together))


def _batches(chunks: Iterable[Chunk], size: int) -> Iterator[list[Chunk]]:
    """Ask small cells together, up to `size` pairs: an engine idles at the end of each batch."""
    batch: list[Chunk] = []
    pairs = 0
    for chunk in chunks:
        if batch and pairs + len(chunk.numbers) > size:
            yield batch
            batch, pairs = [], 0
        batch.append(chunk)
        pairs += len(chunk.numbers)
    if batch:
        yield batch


def judgements(cell: Cell, judge: Judge, pairs: Sequence[PreferencePair]) -> Iterator[Judgement]:
    """Ask about both sides of each pair, side 0 then side 1, and yield the answers as records."""
    requests = _requests(cell, pairs)
    for request, answer in zip(requests, judge.ask(requests), strict=True):
        yield from _records(cell, request, answer)


def _requests(cell: Cell, pairs: Sequence[PreferencePair]) -> list[JudgeRequest]:
    return [make_request(pair, side, cell.prompt, cell.n_samples, cell.seed) for pair in pairs for side in (0, 1)]


def _records(cell: Cell, request: JudgeRequest, answer: JudgeAnswer) -> Iterator[Judgement]:
    pair = request.pair
    asked = stable_hash(json.dumps(request.messages), repr(cell.sampling), str(request.seed))
    for sample, completion in zip(range(request.n_samples), answer.completions, strict=True):
        score, expectation = _score(cell.prompt, completion), completion.expectation
        yield Judgement(
            label_id=pair.label_id,
            pair_id=pair.pair_id,
            side=request.side,
            sample=sample,
            preferred_side=pair.preferred,
            split=pair.split,
            judge=cell.judge,
            model_hash=cell.model_hash,
            adapter_hash=cell.adapter_hash,
            prompt=cell.prompt.name,
            method=cell.method if expectation is None else "expected",
            seed=cell.seed,
            completion=completion.text,
            score=score.value,
            outcome=str(score.outcome),
            finish_reason=completion.finish_reason,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=completion.tokens,
            distribution=None if expectation is None else _distribution(expectation),
            request_hash=asked,
            dataset=cell.dataset,
        )


def _score(prompt: PromptSpec, completion: Completion) -> Score:
    if completion.finish_reason == "prompt_too_long":
        return Score(None, Outcome.TRUNCATED)
    if completion.expectation is not None:
        return Score(completion.expectation.value, Outcome.SCORED)
    return parse_score(completion.text, prompt.parser, completion.finish_reason)


def _distribution(expectation: Expectation) -> str:
    """Return an expected score's distribution as JSON; what rounds to nothing is left out."""
    weights = {numeral: round(weight, 6) for numeral, weight in expectation.weights.items()}
    return json.dumps({"mass": round(expectation.mass, 6), "weights": {n: w for n, w in weights.items() if w > 0}})
