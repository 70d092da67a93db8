"""The best checkpoint, told: its number, the data that it is from, and how sure the choice is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from btrm.metrics.decisions import more_in_words
from btrm.report.comparisons import Compared
from btrm.report.rows import JudgeKey, SummaryRow, judge_names
from btrm.report.selection import choose_data_set, ranked, with_accuracy

_ROUNDING = 1e-12  # of a difference of means


@dataclass(frozen=True, slots=True)
class Best:
    """The best checkpoint by its accuracy on `selected_on`, with its accuracy on `dataset`.

    The difference is to the runner-up on `selected_on` (95 % interval, p after Holm), and `pairs_needed` there; NaN
    without one. `own_test_set`: the number told is from the data that it was selected on.
    `left_out` names those that could not be selected, since cells of theirs are missing; `incomplete` those that could
    all the same, since fewer than two have all their cells.
    """

    checkpoint: str
    dataset: str
    selected_on: str
    candidates: int
    accuracy: float
    low: float
    high: float
    runner_up: str | None
    difference: float
    difference_low: float
    difference_high: float
    p_holm: float
    pairs_needed: float
    own_test_set: bool
    left_out: tuple[str, ...] = ()
    incomplete: tuple[str, ...] = ()


def best(rows: Sequence[SummaryRow], comparisons: Sequence[Compared], selected_on: str | None = None) -> Best | None:
    """Return the best checkpoint; None where there is only one, or no data set to select on."""
    data_set = choose_data_set((row.dataset for row in rows), selected_on)
    mine = with_accuracy([row for row in rows if row.dataset == data_set])
    if data_set is None or len(mine) < 2:
        return None
    in_order = ranked(mine)
    first, second = in_order[:2]
    told = _told_on([row for row in rows if row.key == first.key], data_set)
    lead = next((c.result for c in comparisons if _is_lead(c, data_set, first.key, second.key)), None)
    names = judge_names(row.key for row in rows)
    return Best(
        checkpoint=names[first.key],
        dataset=told.dataset,
        selected_on=data_set,
        candidates=len(in_order),
        accuracy=told.mean("accuracy"),
        low=told.accuracy.low,
        high=told.accuracy.high,
        runner_up=names[second.key],
        difference=lead.difference if lead else math.nan,
        difference_low=lead.low if lead else math.nan,
        difference_high=lead.high if lead else math.nan,
        p_holm=lead.p_holm if lead else math.nan,
        pairs_needed=lead.pairs_needed if lead else math.nan,
        own_test_set=told.dataset == data_set,
        left_out=tuple(_lacking(row, names) for row in mine if row not in in_order),
        incomplete=tuple(_lacking(row, names) for row in in_order if not row.whole),
    )


def sentence(found: Best) -> str:
    """Return the best checkpoint in words: its number, where from, and how sure the choice is."""
    interval = "" if math.isnan(found.low) else f" [{found.low:.3f}, {found.high:.3f}]"
    number = f"{found.accuracy:.3f}{interval} on {found.dataset}"
    how = f"the highest accuracy of {found.candidates} on {found.selected_on}"
    if found.own_test_set:
        head = f"{found.checkpoint}: {number}; optimistic, since it was selected on these data ({how})"
    else:
        head = f"{found.checkpoint}: {number}, selected by {how}"
    lead = [] if math.isnan(found.difference) else [_runner_up(found)]
    return " ".join([f"{head}.", *lead, *_incomplete(found)])


def _incomplete(found: Best) -> list[str]:
    if found.left_out:
        return [f"Left out, since cells are missing: {'; '.join(found.left_out)}."]
    lacking = "; ".join(found.incomplete)
    return [f"It rests on missing cells, and may change with them: {lacking}."] if lacking else []


def _lacking(row: SummaryRow, names: Mapping[JudgeKey, str]) -> str:
    return f"{names[row.key]} ({', '.join(row.missing)})"


def as_json(found: Best) -> dict[str, Any]:
    """Return the choice as JSON can hold it; null is not defined, or infinite."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(found).items()}


def _runner_up(found: Best) -> str:
    low, high = found.difference_low, found.difference_high
    if abs(found.difference) < _ROUNDING:
        return f"On {found.selected_on} {found.runner_up} is as good; the earlier one is named."
    interval = "" if math.isnan(low) else f" [{low:+.3f}, {high:+.3f}]"
    lead = f"It leads {found.runner_up} by {found.difference:.3f}{interval} on {found.selected_on}"
    if found.p_holm < 0.05:
        return f"{lead} (p {found.p_holm:.2g} after Holm)."
    more = more_in_words(found.pairs_needed)
    return f"{lead}, which does not tell them apart{f'; {more}' if more else ''}."


def _told_on(rows: Sequence[SummaryRow], selected_on: str) -> SummaryRow:
    """Return the row to report: on test where there is one, else on any data but the selection's, else on these."""
    return min(rows, key=lambda row: (row.dataset == selected_on, row.dataset != "test", row.dataset))


def _is_lead(compared: Compared, dataset: str, first: JudgeKey, second: JudgeKey) -> bool:
    return (compared.dataset, compared.kind, compared.a, compared.b) == (dataset, "best", first, second)
