"""A benchmark's rows as its source reads them, judged by hand: the cell that official scores are made of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from made_judgements import judgement

from btrm.data.sources import iter_pairs
from btrm.metrics.judged import JudgedCell, read_cells
from btrm.records import Judgement, PreferencePair, write_judgements, write_pairs

Scores = Mapping[tuple[str, str], Sequence[float | None]]  # {(group, response): one score a sample}


def benchmark_pairs(folder: Path, dataset: str, rows: Sequence[Any], **options: str) -> list[PreferencePair]:
    """Return the pairs that a source makes of these rows."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(iter_pairs(dataset, "test", data_files=[path], options=options))


def judged_cell(folder: Path, pairs: Sequence[PreferencePair], scores: Scores) -> JudgedCell:
    """Return the cell of a judge that gave these scores, by way of judgements.parquet and pairs.parquet."""
    return written_cell(folder, pairs, lambda pair, side: scores[str(pair.meta["group"]), pair.responses[side]])


def written_cell(
    folder: Path, pairs: Sequence[PreferencePair], samples: Callable[[PreferencePair, int], Sequence[float | None]]
) -> JudgedCell:
    """Write pairs and judgements, and read their one cell."""
    write_pairs(folder / "pairs.parquet", pairs)
    write_judgements(folder / "judgements.parquet", _judgements(pairs, samples))
    (cell,) = read_cells(folder / "judgements.parquet", folder / "pairs.parquet")
    return cell


def _judgements(
    pairs: Sequence[PreferencePair], samples: Callable[[PreferencePair, int], Sequence[float | None]]
) -> Iterator[Judgement]:
    for pair in pairs:
        for side in (0, 1):
            for sample, score in enumerate(samples(pair, side)):
                yield judgement(pair, side, sample, score)
