"""One row a (split, checkpoint): its seeds brought together, with intervals paired to the baseline's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from btrm.metrics.bootstrap import Interval, percentile_interval, resampled_sums
from btrm.metrics.judged import JudgedCell, clusters
from btrm.metrics.pairwise import Floats, metric_columns, ratio

EvalRow = Mapping[str, Any]
_FIRST = {"base": 0, "sft": 1}  # the natural order begins where training does
_STEP = re.compile(r"(?:^|[-_])(\d+)\Z")


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One checkpoint on one split. `evals` holds its eval.jsonl rows, one a seed."""

    checkpoint: str
    split: str
    evals: tuple[EvalRow, ...]
    accuracy: Interval
    baseline: str | None
    difference: float
    difference_interval: Interval
    missing: tuple[str, ...]

    @property
    def step(self) -> int | None:
        """The training step that the checkpoint's name tells, if it does."""
        return step_of(self.checkpoint)

    def mean(self, metric: str) -> float:
        """Return the mean of a metric over the seeds that define it, NaN where none does."""
        values = self._values(metric)
        return float(np.mean(values)) if len(values) else float("nan")

    def std(self, metric: str) -> float:
        """Return the sample standard deviation (ddof=1) over seeds, NaN for fewer than two."""
        values = self._values(metric)
        return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")

    def _values(self, metric: str) -> Floats:
        return np.array([row[metric] for row in self.evals if row[metric] is not None], dtype=np.float64)


def step_of(checkpoint: str) -> int | None:
    """Return the step of a name like checkpoint-50."""
    match = _STEP.search(checkpoint)
    return int(match[1]) if match else None


def natural_order(checkpoint: str) -> tuple[int, int, str]:
    """Return a sort key: base, sft, others without a step, then checkpoints by step."""
    step = step_of(checkpoint)
    return (_FIRST.get(checkpoint, 2 if step is None else 3), step or 0, checkpoint)


def choose_baseline(checkpoints: Sequence[str], wanted: str | None) -> str | None:
    """Return the checkpoint to compare with: the wanted one, else sft, else base, else none."""
    return next((name for name in (wanted, "sft", "base") if name in checkpoints), None)


def summary_rows(
    evals: Sequence[EvalRow], cells: Sequence[JudgedCell], baseline: str | None, n_bootstrap: int, seed: int
) -> list[SummaryRow]:
    """Return the rows of all splits in natural order."""
    rows: list[SummaryRow] = []
    for split in sorted({str(row["dataset"]) for row in evals}):
        of_split = [row for row in evals if row["dataset"] == split]
        cells_of_split = [cell for cell in cells if cell.dataset == split]
        rows += _split_rows(split, of_split, cells_of_split, baseline, n_bootstrap, seed)
    return rows


def _split_rows(
    split: str,
    evals: Sequence[EvalRow],
    cells: Sequence[JudgedCell],
    wanted: str | None,
    n_bootstrap: int,
    seed: int,
) -> list[SummaryRow]:
    names = sorted({str(row["checkpoint"]) for row in evals}, key=natural_order)
    baseline = choose_baseline(names, wanted)
    accuracy_BC = _accuracy_resamples(names, cells, evals[0], n_bootstrap, seed)
    seeds = sorted({int(row["seed"]) for row in evals})
    n_pairs = max(int(row["n_pairs"]) for row in evals)
    means = {name: np.mean([r["accuracy"] for r in evals if r["checkpoint"] == name]) for name in names}
    rows: list[SummaryRow] = []
    for place, name in enumerate(names):
        own = tuple(row for row in evals if row["checkpoint"] == name)
        compared = baseline is not None and name != baseline
        against = names.index(baseline) if baseline is not None else place
        difference_B = accuracy_BC[:, place] - accuracy_BC[:, against]
        rows.append(
            SummaryRow(
                checkpoint=name,
                split=split,
                evals=own,
                accuracy=percentile_interval(accuracy_BC[:, place]),
                baseline=baseline if compared else None,
                difference=float(means[name] - means[names[against]]) if compared else float("nan"),
                difference_interval=percentile_interval(difference_B[:0] if not compared else difference_B),
                missing=_missing(own, seeds, n_pairs),
            )
        )
    return rows


def _missing(evals: Sequence[EvalRow], seeds: Sequence[int], n_pairs: int) -> tuple[str, ...]:
    """Name the cells that other checkpoints of the split have and this one has not, or not whole."""
    pairs = {int(row["seed"]): int(row["n_pairs"]) for row in evals}
    absent = [f"seed {seed}" for seed in seeds if seed not in pairs]
    short = [f"seed {seed}: {n} of {n_pairs} pairs" for seed, n in sorted(pairs.items()) if n < n_pairs]
    return (*absent, *short)


def _accuracy_resamples(
    names: Sequence[str], cells: Sequence[JudgedCell], settings: EvalRow, n_bootstrap: int, seed: int
) -> Floats:
    """Return accuracy_BC of each checkpoint in each resample of the pairs; seeds are replicates of a pair.

    All checkpoints see the same resamples, and a pair that several people labelled is drawn with all its labels.
    """
    label_of_pair = {label: pair for cell in cells for label, pair in zip(cell.label_id_P, cell.pair_id_P, strict=True)}
    place = {label: i for i, label in enumerate(label_of_pair)}
    sums_PM = np.zeros((len(place), 2 * len(names)))
    for cell in cells:
        if cell.judge not in names:
            continue
        scale = (settings["scale_low"], settings["scale_high"])
        outcomes = cell.outcomes(settings["bt_temp"], settings["unparsed"], scale)
        column = 2 * names.index(cell.judge)
        where = np.array([place[label] for label in cell.label_id_P], dtype=np.int64)
        for offset, values_P in enumerate(metric_columns(outcomes)["accuracy"]):
            sums_PM[where, column + offset] += values_P
    sums_BM = resampled_sums(sums_PM, n_bootstrap, seed, clusters(list(label_of_pair.values())))
    return ratio(sums_BM[:, 0::2], sums_BM[:, 1::2])
