"""What report.html is made of: tables as they are on disk, and the pairs that are worth reading."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Row = Mapping[str, Any]
Trouble = Literal["wrong", "disagreement"]


@dataclass(frozen=True, slots=True)
class Answer:
    """One completion of the judge about one side of a pair; `score` is None where none could be read."""

    side: int
    seed: int
    sample: int
    score: float | None
    outcome: str
    completion: str


@dataclass(frozen=True, slots=True)
class WorstPair:
    """A pair to read side by side. `margin` is the preferred side's mean score less the other's (None: no score).

    `trouble` tells why it is here: confidently "wrong", or a "disagreement" of the judge with itself. `spread` is the
    standard deviation of the margin over the judge's answers.
    """

    trouble: Trouble
    checkpoint: str
    dataset: str
    label_id: str
    context: str
    responses: tuple[str, str]
    preferred: int
    scores: tuple[float | None, float | None]
    margin: float | None
    spread: float | None
    answers: tuple[Answer, ...]
    source: str = ""


@dataclass(frozen=True, slots=True)
class ReportInput:
    """The tables behind a report.

    `records` are the rows of summary.csv, `evals` of eval.jsonl, `details` of details.jsonl, `comparisons` of
    comparisons.csv. `best` is the sentence that names the best checkpoint, `best_checkpoint` its name, `best_dataset`
    the data set that its number is reported on, `own_test_set` whether it was selected on that very data, `baseline`
    what it is compared with. `columns` are those that the summary shows (none: the usual ones). `notes` end up under
    how the numbers were made.
    """

    records: Sequence[Row]
    evals: Sequence[Row]
    details: Sequence[Row] = ()
    comparisons: Sequence[Row] = ()
    best: str = ""
    best_checkpoint: str | None = None
    best_dataset: str | None = None
    own_test_set: bool = False
    baseline: str | None = None
    worst: Sequence[WorstPair] = ()
    columns: Sequence[str] = ()
    notes: Sequence[str] = ()
