"""Asking durably: what is missing by row key is asked, in parts that are each won once; what is there stays."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from btrm.judges.base import Completion, Expectation, Judge, JudgeAnswer, JudgeRequest, make_request
from btrm.judges.cells import Cell
from btrm.judges.chunk_claims import Claims
from btrm.judges.pair_sets import PairSets
from btrm.prompts import PromptSpec
from btrm.publishing import win
from btrm.records import Judgement, PreferencePair, stable_hash, write_judgements
from btrm.runs import StageRun
from btrm.scores import Outcome, Score, parse_score
from btrm.work import Ranges


@dataclass(frozen=True, slots=True)
class Chunk:
    """Pairs of one cell, by number, that become one part; `slot` counts parts along the data set."""

    cell: Cell
    slot: int
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Asking:
    """What asking needs beside the judge: where parts go, the pairs by number, and how many are asked about at once.

    `records` are the pairs that are asked about, {data set: {number: pair}}. A part holds `part_pairs` pairs of a cell;
    `at_once` pairs of cells are asked at a time, and all cells that ask about the same pairs with them.
    """

    run: StageRun
    directory: Path
    sets: PairSets
    records: Mapping[str | None, Mapping[int, PreferencePair]]
    part_pairs: int
    at_once: int
    claims: Claims

    def claimed(self, todo: Iterable[tuple[Cell, Ranges]], *, backwards: bool = False) -> Iterator[list[Chunk]]:
        """Claim rows of cells batch by batch, and yield what is ours to ask about, and not there yet."""
        groups = _side_by_side(chunk for cell, missing in todo for chunk in _chunks(cell, missing, self.part_pairs))
        for batch in _batches(groups[::-1] if backwards else groups, self.at_once):
            if mine := [chunk for chunk in batch if self._take(chunk)]:
                yield mine

    def answer(self, judge: Judge, chunks: Sequence[Chunk]) -> int:
        """Ask about claimed chunks and commit them; return the number of pairs. A stop afterwards loses nothing."""
        self._commit(judge, chunks, self.run.scratch("part.parquet"))
        self.claims.release(self._path(chunk).name for chunk in chunks)
        return _pairs_in(chunks)

    def _take(self, chunk: Chunk) -> bool:
        path = self._path(chunk)
        if path.exists() or not self.claims.take(path.name):
            return False
        if path.exists():  # its owner has just won it, and given the claim back
            self.claims.release([path.name])
        return path.name in self.claims

    def _path(self, chunk: Chunk) -> Path:
        pairs = self.sets.of(chunk.cell)
        return self.directory / pairs.part_name(chunk.cell, [pairs.labels[n] for n in chunk.numbers])

    def _commit(self, judge: Judge, chunks: Sequence[Chunk], scratch: Path) -> None:
        """Ask about several chunks at once, and win a part for each; ValueError where a judge gives too few answers."""
        places = _places(chunks)
        requests = [self._request(chunks[place.chunk], place) for place in places]
        rows: list[list[Judgement]] = [[] for _ in chunks]
        for place, request, answer in zip(places, requests, _ask_once(judge, requests), strict=True):
            rows[place.chunk] += _records(chunks[place.chunk].cell, request, answer)
        for chunk, judged in zip(chunks, rows, strict=True):
            write_judgements(scratch, judged)
            win(scratch, self._path(chunk))

    def _request(self, chunk: Chunk, place: _Place) -> JudgeRequest:
        pair, cell = self.records[chunk.cell.dataset][place.number], chunk.cell
        return make_request(pair, place.side, cell.prompt, cell.n_samples, cell.seed)


class _Place(NamedTuple):
    """Where a request stands among those asked at once: places sort by what is asked first."""

    dataset: int
    number: int
    side: int
    chunk: int


def _places(chunks: Sequence[Chunk]) -> list[_Place]:
    """Return the places of all requests: a pair's both sides, and of each side all seeds, stand together.

    An engine's prefix cache then holds what they share, whatever its size: a side's whole prompt for the next seed, a
    pair's context for the other side.
    """
    ranks = {dataset: rank for rank, dataset in enumerate(dict.fromkeys(chunk.cell.dataset for chunk in chunks))}
    return sorted(
        _Place(ranks[chunk.cell.dataset], number, side, index)
        for index, chunk in enumerate(chunks)
        for number in chunk.numbers
        for side in (0, 1)
    )


def _ask_once(judge: Judge, requests: Sequence[JudgeRequest]) -> Iterator[JudgeAnswer]:
    """Yield an answer a request; equal questions are asked once: a benchmark's response stands in several pairs."""
    keys = [(request.seed, *(message["content"] for message in request.messages)) for request in requests]
    distinct = dict(zip(keys, requests, strict=True))
    answers = dict(zip(distinct, judge.ask(list(distinct.values())), strict=True))
    return (answers[key] for key in keys)


def _chunks(cell: Cell, missing: Ranges, size: int) -> Iterator[Chunk]:
    """Cut at multiples of `size`, wherever a share begins: attempts at the same rows then meet in the same names."""
    numbers = (number for first, last in missing for number in range(first, last))
    for slot, together in groupby(numbers, key=lambda number: number // size):
        yield Chunk(cell, slot, tuple(together))


def _side_by_side(chunks: Iterable[Chunk]) -> list[list[Chunk]]:
    """Return the chunks of all seeds that are about the same pairs together, in the order of the first of them."""
    groups: dict[tuple[str | None, int], list[Chunk]] = {}
    for chunk in chunks:
        groups.setdefault((chunk.cell.dataset, chunk.slot), []).append(chunk)
    return list(groups.values())


def _batches(groups: Iterable[Sequence[Chunk]], size: int) -> Iterator[list[Chunk]]:
    """Ask small groups together, up to `size` pairs of cells: an engine idles at the end of each batch."""
    batch: list[Chunk] = []
    for group in groups:
        if batch and _pairs_in(batch) + _pairs_in(group) > size:
            yield batch
            batch = []
        batch += group
    if batch:
        yield batch


def _pairs_in(chunks: Iterable[Chunk]) -> int:
    return sum(len(chunk.numbers) for chunk in chunks)


def judgements(cell: Cell, judge: Judge, pairs: Sequence[PreferencePair]) -> Iterator[Judgement]:
    """Ask about both sides of each pair, side 0 then side 1, and yield the answers as records."""
    requests = [make_request(pair, side, cell.prompt, cell.n_samples, cell.seed) for pair in pairs for side in (0, 1)]
    for request, answer in zip(requests, judge.ask(requests), strict=True):
        yield from _records(cell, request, answer)


def _records(cell: Cell, request: JudgeRequest, answer: JudgeAnswer) -> Iterator[Judgement]:
    pair = request.pair
    how = [repr(cell.sampling), *filter(None, [cell.expected])]
    asked = stable_hash(json.dumps(request.messages), *how, str(request.seed))
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
            method=cell.method,
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
    score = parse_score(completion.text, prompt.parser, completion.finish_reason)
    if score.outcome is Outcome.SCORED and completion.expectation is not None:
        return Score(completion.expectation.value, Outcome.SCORED)  # the text names the likeliest score only
    return score


def _distribution(expectation: Expectation) -> str:
    """Return an expected score's distribution as JSON; what rounds to nothing is left out."""
    weights = {numeral: round(weight, 6) for numeral, weight in expectation.weights.items()}
    return json.dumps({"mass": round(expectation.mass, 6), "weights": {n: w for n, w in weights.items() if w > 0}})
