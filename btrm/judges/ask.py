"""Asking durably: what is missing by row key is asked, in parts that are each won once; what is there stays."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from btrm.config import ConfigError
from btrm.judges.base import Completion, Judge, JudgeAnswer, JudgeRequest, Sampling, make_request
from btrm.prompts import PromptSpec
from btrm.records import (
    Judgement,
    Method,
    PreferencePair,
    judgement_schema,
    read_judgements,
    stable_hash,
    write_judgements,
)
from btrm.runs import StageRun, replace, win
from btrm.scores import Outcome, Score, parse_score

if TYPE_CHECKING:
    import pyarrow as pa

RowKey = tuple[str, int, int]  # label_id, side, sample


@dataclass(frozen=True, slots=True)
class Cell:
    """One judge at one seed, and what is written about it into every row of its answers."""

    name: str
    judge: str
    model_hash: str
    adapter_hash: str | None
    prompt: PromptSpec
    sampling: Sampling
    n_samples: int
    seed: int

    @property
    def method(self) -> Method:
        """How this cell's answers were drawn."""
        return "greedy" if self.sampling.temperature == 0 else "sampled"


def parts_of(directory: Path, cell: str) -> list[Path]:
    """Return the files of a cell in the order in which they were won: NAME.parquet, NAME.1.parquet, ..."""
    return sorted(directory.glob(f"{cell}.parquet")) + sorted(
        directory.glob(f"{cell}.[0-9]*.parquet"), key=lambda path: int(path.name.split(".")[-2])
    )


def read_cell(directory: Path, cell: Cell) -> pa.Table:
    """Return the rows of a cell, each (label_id, side, sample) once: where two attempts asked, the first won.

    Raises ConfigError where they were judged with other weights than the cell has now.
    """
    import pyarrow as pa

    tables = [judgement_schema().empty_table()]
    for path in parts_of(directory, cell.name):
        table = read_judgements(path)
        _check_weights(path, table, cell)
        tables.append(table)
    whole = pa.concat_tables(tables)
    first: dict[RowKey, int] = {}
    for row, key in enumerate(_keys(whole)):
        first.setdefault(key, row)
    return whole if len(first) == whole.num_rows else whole.take(list(first.values()))


def _keys(table: pa.Table) -> Iterator[RowKey]:
    columns = (table[name].to_pylist() for name in ("label_id", "side", "sample"))
    return zip(*columns, strict=True)


def _check_weights(path: Path, table: pa.Table, cell: Cell) -> None:
    for name, now in (("model_hash", cell.model_hash), ("adapter_hash", cell.adapter_hash)):
        before = table[name].unique().to_pylist()
        if before not in ([now], []):
            raise ConfigError(
                f"{path}: {cell.judge} was judged with other weights ({name} {before[0]}, now {now}); "
                "give the new ones another label or another --run"
            )


def missing_pairs(directory: Path, cell: Cell, pairs: Sequence[PreferencePair]) -> list[PreferencePair]:
    """Return the pairs of which a cell lacks any row."""
    there = set(_keys(read_cell(directory, cell)))
    wanted = [(side, sample) for side in (0, 1) for sample in range(cell.n_samples)]
    return [pair for pair in pairs if any((pair.label_id, *key) not in there for key in wanted)]


def ask_missing(
    run: StageRun, directory: Path, cell: Cell, judge: Judge, pairs: Sequence[PreferencePair], part_pairs: int
) -> Iterator[int]:
    """Ask about what a cell lacks, `part_pairs` pairs a part; yield the number of pairs after each part that is won."""
    missing = missing_pairs(directory, cell, pairs)
    for start in range(0, len(missing), part_pairs):
        chunk = missing[start : start + part_pairs]
        number = len(parts_of(directory, cell.name))
        name = f"{cell.name}.{number}.parquet" if number else f"{cell.name}.parquet"
        scratch = run.scratch(name)
        write_judgements(scratch, judgements(cell, judge, chunk))
        win(scratch, directory / name)
        yield len(chunk)


def judgements(cell: Cell, judge: Judge, pairs: Sequence[PreferencePair]) -> Iterator[Judgement]:
    """Ask about both sides of each pair, side 0 then side 1, and yield the answers as records."""
    requests = [make_request(p, side, cell.prompt, cell.n_samples, cell.seed) for p in pairs for side in (0, 1)]
    answers = judge.ask(requests)
    for request, answer in zip(requests, answers, strict=True):
        yield from _records(cell, request, answer)


def _records(cell: Cell, request: JudgeRequest, answer: JudgeAnswer) -> Iterator[Judgement]:
    pair = request.pair
    asked = stable_hash(json.dumps(request.messages), repr(cell.sampling), str(request.seed))
    for sample, completion in enumerate(answer.completions):
        score = _score(cell.prompt, completion)
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
            request_hash=asked,
        )


def _score(prompt: PromptSpec, completion: Completion) -> Score:
    if completion.finish_reason == "prompt_too_long":
        return Score(None, Outcome.TRUNCATED)
    return parse_score(completion.text, prompt.parser, completion.finish_reason)


def rebuild(run: StageRun, directory: Path, cells: Sequence[Cell], pairs: Sequence[PreferencePair]) -> int:
    """Write judgements.parquet from the cells that the config names, cut to its pairs; return its rows.

    Rows go by cell, then by the pairs' order, side and sample: the file does not tell how often it was extended.
    """
    import pyarrow.parquet as pq

    place = {pair.label_id: number for number, pair in enumerate(pairs)}
    scratch = run.scratch("judgements.parquet")
    rows = 0
    with pq.ParquetWriter(scratch, judgement_schema(), compression="zstd") as writer:
        for cell in cells:
            table = _ordered(read_cell(directory, cell), place)
            rows += table.num_rows
            writer.write_table(table)
    replace(scratch, run.dir / "judgements.parquet")
    return rows


def _ordered(table: pa.Table, place: Mapping[str, int]) -> pa.Table:
    keyed = [
        (place[label], side, sample, row) for row, (label, side, sample) in enumerate(_keys(table)) if label in place
    ]
    return table.take([row for *_, row in sorted(keyed)])
