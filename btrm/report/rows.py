"""One row a judge and data set: its seeds brought together, compared with its baseline's."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from btrm.metrics.bootstrap import Interval
from btrm.metrics.decisions import Comparison
from btrm.metrics.pairwise import Floats

EvalRow = Mapping[str, Any]
OPTIMISTIC = "optimistic: selected on these data"
_DATA_SET = "data set "
_FIRST = {"base": 0, "sft": 1}  # the natural order begins where training does
_STEP = re.compile(r"(?:^|[-_])(\d+)\Z")


class JudgeKey(NamedTuple):
    """Who judged: a checkpoint, asked by a prompt, its score taken by a method."""

    checkpoint: str
    prompt: str
    method: str


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One judge on one data set. `evals` holds its eval.jsonl rows, one a seed; `run` is empty within a run.

    `comparison` is with the baseline; `missing` names what others have and it has not; `selected` tells how the row
    came to be the best, where it is. `strict` is the strict accuracy's interval, where it was resampled.
    """

    key: JudgeKey
    dataset: str
    evals: tuple[EvalRow, ...]
    accuracy: Interval
    baseline: str | None = None
    comparison: Comparison | None = None
    missing: tuple[str, ...] = ()
    selected: str = ""
    run: str = ""
    strict: Interval | None = None

    @property
    def checkpoint(self) -> str:
        """What was judged with."""
        return self.key.checkpoint

    @property
    def step(self) -> int | None:
        """The training step that the checkpoint's name tells, if it does."""
        return step_of(self.checkpoint)

    @property
    def whole(self) -> bool:
        """Whether it has all cells of this data set, so that its mean is over the same seeds and pairs as others'."""
        return all(lacking.startswith(_DATA_SET) for lacking in self.missing)

    def mean(self, metric: str) -> float:
        """Return the mean of a metric over the seeds that define it, NaN where none does."""
        values = self._values(metric)
        return float(np.mean(values)) if len(values) else float("nan")

    def std(self, metric: str) -> float:
        """Return the sample standard deviation (ddof=1) over seeds, NaN for fewer than two."""
        values = self._values(metric)
        return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")

    @property
    def fitted_temp(self) -> float:
        """The median over seeds; a seed with a fitted loss and no temperature has an infinite one, null on disk."""
        fitted = [row for row in self.evals if row.get("fitted_log_loss") is not None]
        told = [math.inf if row.get("fitted_temp") is None else float(row["fitted_temp"]) for row in fitted]
        return median(told) if told else math.nan

    def text(self, name: str) -> str:
        """Return what the seeds say under a name, the first that says anything; empty where none does."""
        return next((str(row[name]) for row in self.evals if row.get(name) is not None), "")

    def _values(self, metric: str) -> Floats:
        return np.array([v for row in self.evals if (v := row.get(metric)) is not None], dtype=np.float64)


def step_of(checkpoint: str) -> int | None:
    """Return the step of a name like checkpoint-50."""
    match = _STEP.search(checkpoint)
    return int(match[1]) if match else None


def natural_order(checkpoint: str) -> tuple[int, int, str]:
    """Return a sort key: base, sft, others without a step, then checkpoints by step."""
    step = step_of(checkpoint)
    return (_FIRST.get(checkpoint, 2 if step is None else 3), step or 0, checkpoint)


def key_of(row: EvalRow) -> JudgeKey:
    """Return the judge of an eval.jsonl row."""
    return JudgeKey(str(row["checkpoint"]), str(row.get("prompt", "")), str(row.get("method", "")))


def key_order(key: JudgeKey) -> tuple[str, str, tuple[int, int, str]]:
    """Return a sort key: prompts and methods stay together, checkpoints within them in their natural order."""
    return (key.prompt, key.method, natural_order(key.checkpoint))


def judge_names(keys: Iterable[JudgeKey]) -> dict[JudgeKey, str]:
    """Return {judge: name}: the checkpoint's, with the prompt and the method where the judges differ in these."""
    found = list(keys)
    prompts, methods = len({key.prompt for key in found}) > 1, len({key.method for key in found}) > 1
    names: dict[JudgeKey, str] = {}
    for key in found:
        more = [part for part, told in ((key.prompt, prompts), (key.method, methods)) if told]
        names[key] = f"{key.checkpoint} ({', '.join(more)})" if more else key.checkpoint
    return names


def choose_baseline(checkpoints: Sequence[str], wanted: str | None) -> str | None:
    """Return the checkpoint to compare with: the wanted one, else sft, else base, else none."""
    return next((name for name in (wanted, "sft", "base") if name in checkpoints), None)


def how_selected(dataset: str, selected_on: str | None) -> str:
    """Return what is said of the best's numbers on a data set: that they are optimistic, or by which data it was."""
    return OPTIMISTIC if dataset == selected_on else f"on {selected_on}"


def seeds_interval(evals: Sequence[EvalRow], metric: str) -> Interval:
    """Return the mean of the seeds' intervals: a mean over seeds varies no more than one seed does."""
    ends = [(r.get(f"{metric}_low"), r.get(f"{metric}_high")) for r in evals]
    told = np.array([(low, high) for low, high in ends if low is not None and high is not None], dtype=np.float64)
    low, high = told.mean(axis=0) if len(told) else (float("nan"), float("nan"))
    return Interval(float(low), float(high))


def missing_cells(evals: Sequence[EvalRow], seeds: Sequence[int], n_pairs: int) -> tuple[str, ...]:
    """Name the cells that other judges of the data set have and this one has not, or not whole.

    A cell is whole with all pairs, and as many answers as two sides of each take with the most samples of any.
    """
    found = {int(row["seed"]): row for row in evals}
    absent = [f"seed {seed}" for seed in seeds if seed not in found]
    return (*absent, *(f"seed {seed}: {short}" for seed in sorted(found) if (short := _short(found[seed], n_pairs))))


def _short(row: EvalRow, n_pairs: int) -> str:
    """Return what a cell lacks; logs of other programs may not tell how many answers there are."""
    own, samples, answers = int(row["n_pairs"] or 0), row.get("n_samples"), row.get("n_judgements")
    short = [f"{own} of {n_pairs} pairs"] if own < n_pairs else []
    if samples and answers is not None and answers < 2 * own * samples:
        short.append(f"{answers:.0f} of {2 * own * samples:.0f} answers")
    return ", ".join(short)


def absent_data_set(name: str) -> str:
    """Return what `missing` says of a data set that others were judged on."""
    return f"{_DATA_SET}{name}"
