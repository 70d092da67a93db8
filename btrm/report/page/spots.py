"""What a learning curve goes through: a metric of each checkpoint, with its interval and its seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from btrm.report.page.values import number
from btrm.report.report_input import Row
from btrm.report.selection import is_optimistic


@dataclass(frozen=True, slots=True)
class Spot:
    """A checkpoint on a curve: the mean over seeds, its interval (NaN: none), and each seed's own value.

    Checkpoints of one `family` (asked by one prompt, by one method) make one line. `optimistic`: it was selected on
    these very data.
    """

    checkpoint: str
    family: str
    step: float
    mean: float
    low: float
    high: float
    seeds: Mapping[int, float]
    optimistic: bool = False


def spots(records: Sequence[Row], evals: Sequence[Row], dataset: str, metric: str) -> list[Spot]:
    """Return a metric's spots on a data set, in the order of the summary; `step` is NaN where there is none."""
    seeds_of: dict[str, dict[int, float]] = {}
    for row in evals:
        if row["dataset"] == dataset:
            seeds_of.setdefault(str(row["checkpoint"]), {})[int(row["seed"])] = number(row.get(metric))
    found: list[Spot] = []
    for record in records:
        seeds = seeds_of.get(str(record["checkpoint"]), {})
        known = [value for value in seeds.values() if math.isfinite(value)]
        if record["dataset"] != dataset or not known:
            continue
        low, high, step = (number(record.get(key)) for key in (f"{metric}_low", f"{metric}_high", "step"))
        family = f"{record.get('prompt', '')} {record.get('method', '')}".strip()
        whose, mean = str(record["checkpoint"]), sum(known) / len(known)
        found.append(Spot(whose, family, step, mean, low, high, seeds, is_optimistic(record)))
    return found
