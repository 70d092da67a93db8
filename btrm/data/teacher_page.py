"""`teacher.md`: a teacher's figures for people."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from btrm.data.teacher_summary import Figures
from btrm.scores import Scale

_BAR = 40


def page(
    figures: Figures, teachers: Sequence[str], each: Sequence[Figures], merge: str, scale: Scale, counts: Counter[str]
) -> str:
    """Return the page.

    `each` has the figures of each of several teachers by itself; `counts` holds the rows that were written, what was
    dropped by reason, and the pairs that all teachers judged.
    """
    parts = (
        _head(figures, teachers, merge),
        _rows(counts),
        _each(teachers, each, counts["judged_by_all"]),
        _histogram(figures, scale),
        _calibration(figures),
        _majorities(figures),
    )
    return "\n".join(line for part in parts for line in part)


def _head(figures: Figures, teachers: Sequence[str], merge: str) -> Iterator[str]:
    yield f"# Teacher: {', '.join(teachers)}"
    yield ""
    what = "pairs (each sample by itself)" if merge == "none" else f"pairs ({merge} over all samples)"
    yield f"{figures.judged} {what}, {figures.labelled} of them with a label."
    yield ""
    yield "| figure | value |"
    yield "|---|---|"
    interval = f"(95 %: {_share(figures.low)} to {_share(figures.high)})"
    yield f"| accuracy, ties half | {_share(figures.accuracy)} {interval} |"
    yield f"| strict accuracy, ties wrong | {_share(figures.strict_accuracy)} |"
    yield f"| the longer response wins | {_share(figures.longer_wins)} |"
    yield f"| ties | {_share(figures.tie_rate)} |"
    yield f"| coverage: both sides scored | {_share(figures.coverage)} |"
    bias = figures.position
    if bias.n:
        low, high = _share(bias.interval.low), _share(bias.interval.high)
        yield f"| the response shown first wins ({bias.n}) | {_share(bias.first_wins)} (95 %: {low} to {high}) |"
    outcomes = ", ".join(f"{name} {count}" for name, count in figures.outcomes.items())
    yield f"| answers | {outcomes} |"
    yield ""


def _each(teachers: Sequence[str], each: Sequence[Figures], judged_by_all: int) -> Iterator[str]:
    if not each:
        return
    yield "## Each teacher by itself"
    yield ""
    yield f"On the pairs that it judged; {judged_by_all} labels were judged by all of them."
    yield ""
    yield "| teacher | labelled | accuracy, ties half | 95 % | ties | coverage |"
    yield "|---|---|---|---|---|---|"
    for name, mine in zip(teachers, each, strict=True):
        shares = " | ".join(map(_share, (mine.tie_rate, mine.coverage)))
        interval = f"{_share(mine.low)} to {_share(mine.high)}"
        yield f"| {name} | {mine.labelled} | {_share(mine.accuracy)} | {interval} | {shares} |"
    yield ""


def _rows(counts: Counter[str]) -> Iterator[str]:
    yield f"{counts['rows']} rows to learn from, made of {counts['merged']} answers; {counts['dropped']} dropped."
    if counts["without_reason"]:
        yield f"{counts['without_reason']} of the rows have a score without a reason, though the prompt asks for one."
    if counts["joined_by_pair"]:
        yield f"{counts['joined_by_pair']} of the rows are of judgements made on another label of the same pair."
    yield ""
    reasons = [(name.removeprefix("dropped_"), n) for name, n in counts.most_common() if name.startswith("dropped_")]
    yield from (f"- {name}: {n}" for name, n in reasons)
    if reasons:
        yield ""


def _histogram(figures: Figures, scale: Scale) -> Iterator[str]:
    yield "## Scores"
    yield ""
    step = (scale.high - scale.low) / len(figures.histogram)
    most = max(figures.histogram) or 1
    for place, n in enumerate(figures.histogram):
        low, high = scale.low + place * step, scale.low + (place + 1) * step
        yield f"    {low:5.1f} - {high:5.1f} {n:>8}  {'#' * math.ceil(_BAR * n / most)}".rstrip()
    yield ""


def _calibration(figures: Figures) -> Iterator[str]:
    yield "## Calibration"
    yield ""
    yield "How often it is right, by how far it puts the two sides apart (pairs with a label and two scores):"
    yield ""
    yield "| margin | pairs | accuracy |"
    yield "|---|---|---|"
    for row in figures.bins:
        yield f"| {row.low:g} to {row.high:g} | {row.n} | {_share(row.accuracy)} |"
    fit = figures.calibration
    yield ""
    yield (
        f"P(side 0 is preferred) = sigma(margin / T): T = {_temperature(fit.temperature)} by maximum likelihood, "
        f"log-loss {_plain(fit.log_loss)} (a coin: {math.log(2):.4f}), calibration error {_plain(fit.ece)}."
    )
    yield ""


def _majorities(figures: Figures) -> Iterator[str]:
    yield "## Majority of k samples"
    yield ""
    pairs, most = (figures.majorities[-1].pairs, figures.majorities[-1].k) if figures.majorities else (0, 0)
    yield f"The mean over all subsets of k samples, ties half, on the {pairs} pairs that have all {most} samples:"
    yield ""
    yield "| k | pairs | accuracy |"
    yield "|---|---|---|"
    yield from (f"| {row.k} | {row.pairs} | {_share(row.accuracy)} |" for row in figures.majorities)
    yield ""


def _temperature(value: float) -> str:
    if value == 0:
        return "0 (it is never wrong where the sides differ)"
    return "infinite (its margins tell nothing)" if math.isinf(value) else _plain(value)


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2%}"


def _plain(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"
