"""The summary's columns: (name, function), one list for summary.csv, summary.md, the terminal and the report."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from btrm.config import ConfigError, nearest
from btrm.metrics.bootstrap import Interval
from btrm.metrics.decisions import rough
from btrm.report.aligned import aligned
from btrm.report.rows import SummaryRow, seeds_interval

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """A column: how to compute it, what it means, and how many decimals people see (None: text).

    `wide`: in summary.csv only, unless it is asked for. `varies`: people see it where rows differ in it.
    """

    name: str
    value: Callable[[SummaryRow], Any]
    meaning: str
    decimals: int | None = 3
    wide: bool = False
    varies: bool = False


def _mean(metric: str) -> Callable[[SummaryRow], float]:
    return lambda row: row.mean(metric)


def _std(metric: str) -> Callable[[SummaryRow], float]:
    return lambda row: row.std(metric)


def _compared(field: str) -> Callable[[SummaryRow], float]:
    return lambda row: getattr(row.comparison, field) if row.comparison is not None else math.nan


def _ends(metric: str, told: str = "") -> Iterator[Column]:
    """Yield the ends of a metric's interval; eval.jsonl may call them `told` instead."""
    for end in ("low", "high"):
        yield Column(
            f"{metric}_{end}",
            lambda row, end=end: getattr(seeds_interval(row.evals, told or metric), end),
            f"95 % interval of {metric}, {'from' if end == 'low' else '... to'}: the mean of the seeds' own",
            wide=True,
        )


def _strict(row: SummaryRow) -> Interval:
    return row.strict or seeds_interval(row.evals, "strict_accuracy")


def _metric(metric: str, meaning: str, decimals: int = 3, wide: bool = False, ends: bool = False) -> list[Column]:
    return [
        Column(metric, _mean(metric), meaning, decimals, wide),
        Column(f"{metric}_std", _std(metric), f"sample standard deviation of {metric} over seeds", decimals, True),
        *(_ends(metric) if ends else ()),
    ]


COLUMNS = (
    Column("run", lambda row: row.run, "which run", None),
    Column("checkpoint", lambda row: row.checkpoint, "what was judged with", None),
    Column("dataset", lambda row: row.dataset, "which pairs", None),
    Column("prompt", lambda row: row.key.prompt, "the judge's prompt", None, varies=True),
    Column("method", lambda row: row.key.method, "how a score is taken: sampled, expected, greedy", None, varies=True),
    Column("step", lambda row: row.step, "training step", 0),
    Column("accuracy", _mean("accuracy"), "share of pairs where the preferred side scores higher; a tie counts 1/2"),
    Column("accuracy_std", _std("accuracy"), "sample standard deviation over seeds (ddof=1)"),
    Column(
        "accuracy_low",
        lambda row: row.accuracy.low,
        "95 % bootstrap interval over contexts of the mean over seeds, from",
    ),
    Column("accuracy_high", lambda row: row.accuracy.high, "... to"),
    Column("baseline", lambda row: row.baseline, "what the difference is to", None, wide=True),
    Column("difference", _compared("difference"), "accuracy less the baseline's, on the pairs that both judged"),
    Column("difference_low", _compared("low"), "95 % paired bootstrap interval, from"),
    Column("difference_high", _compared("high"), "... to"),
    Column("p_holm", _compared("p_holm"), "p-value of the difference, after Holm over all such comparisons", 4),
    Column("p_value", _compared("p_bootstrap"), "the same for this row alone", 4, wide=True),
    Column("p_mcnemar", _compared("p_mcnemar"), "McNemar's mid-p, over groups of pairs with one context", 4, wide=True),
    Column("mde", _compared("mde"), "the least difference that is found with 80 % power", wide=True),
    Column(
        "pairs_needed", _compared("pairs_needed"), "pairs of new contexts more that might find it (rough)", 0, wide=True
    ),
    Column("seeds_needed", _compared("seeds_needed"), "seeds more that might (inf: no number of them)", 0, wide=True),
    *_metric("strict_accuracy", "accuracy where a tie counts 0", wide=True),
    Column("strict_accuracy_low", lambda row: _strict(row).low, "95 % interval as that of accuracy, from", wide=True),
    Column("strict_accuracy_high", lambda row: _strict(row).high, "... to", wide=True),
    *_metric("tie_rate", "share of pairs that count as a tie: equal scores, or (unparsed: tie) none", ends=True),
    *_metric("nontie_accuracy", "accuracy over the other pairs", wide=True, ends=True),
    *_metric("coverage", "share of pairs with a score on both sides", wide=True, ends=True),
    *_metric("unparsed_rate", "share of answers without a valid score", ends=True),
    *_metric("truncated_rate", "share of answers that were cut off", wide=True, ends=True),
    *_metric(
        "bt_log_loss", "Bradley-Terry log-loss in nats (a coin has 0.693; ends: the mean of seeds' own)", ends=True
    ),
    Column(
        "fitted_temp",
        lambda row: row.fitted_temp,
        "the temperature fitted to other pairs, the median over seeds (inf: margins tell nothing)",
        1,
        wide=True,
    ),
    *_metric("fitted_log_loss", "log-loss at that temperature (ends: the mean of seeds' own)", wide=True, ends=True),
    *_metric("brier", "mean squared error of that chance (ends: the mean of seeds' own)", wide=True, ends=True),
    *_metric("ece", "expected calibration error of that chance", wide=True),
    *_metric("auc_margin", "how well |margin| tells right from wrong (area under the ROC curve)", wide=True, ends=True),
    *_metric("aurc", "area under the risk-coverage curve", wide=True),
    *_metric("allpairs_accuracy", "accuracy of single answers, each of one side with each of the other", wide=True),
    *_metric("aligned_accuracy", "accuracy of single answers, sample with sample", wide=True),
    *_metric("length_correlation", "correlation of score and length", wide=True),
    *_metric("longer_wins", "accuracy of preferring the longer response", wide=True),
    *_metric("margin_p50", "median margin", 1, wide=True),
    Column("official_name", lambda row: row.text("official_name"), "the benchmark's own score", None, wide=True),
    *_metric("official_score", "the benchmark's own score"),
    *_ends("official_score", "official"),
    Column("n_pairs", lambda row: min((int(e["n_pairs"]) for e in row.evals), default=0), "pairs with a label", 0),
    Column("n_seeds", lambda row: len(row.evals), "judging seeds", 0),
    Column("missing", lambda row: "; ".join(row.missing), "what other checkpoints have and this one has not", None),
    Column("selected", lambda row: row.selected, "the best, and by which data it was selected", None),
)
_NAMES = [column.name for column in COLUMNS]


def as_records(rows: Sequence[SummaryRow]) -> list[dict[str, Any]]:
    """Return {column: value} of each row."""
    return [{column.name: column.value(row) for column in COLUMNS} for row in rows]


def chosen_columns(records: Sequence[Record], wanted: Sequence[str] = ()) -> list[Column]:
    """Return the columns to show: the wanted ones in their order, else the usual ones that say anything.

    Raises ConfigError with all names that are no column.
    """
    check_columns(wanted, "columns")
    if wanted:
        return [COLUMNS[_NAMES.index(name)] for name in wanted]
    usual = [column for column in COLUMNS if not column.wide]
    told = [[_cell(record, column) for record in records] for column in usual]
    return [
        column
        for column, cells in zip(usual, told, strict=True)
        if any(cells) and not (column.varies and len(set(cells)) < 2)
    ]


def check_columns(names: Sequence[str], where: str) -> None:
    """Raise ConfigError with all names that are no column."""
    if bad := [f"{where} {name!r}: no such column{nearest(name, _NAMES)}" for name in names if name not in _NAMES]:
        raise ConfigError("\n".join(bad))


def sort_records(records: Sequence[dict[str, Any]], by: str | None) -> list[dict[str, Any]]:
    """Return the records by a column, `-accuracy` from the top; what has no value comes last, equal ones stay."""
    if not by:
        return list(records)
    name = by.removeprefix("-")
    check_columns([name], "sort")
    told = [record for record in records if _told(record[name])]
    told.sort(key=lambda record: record[name], reverse=by.startswith("-"))
    return told + [record for record in records if not _told(record[name])]


def format_table(records: Sequence[Record], columns: Sequence[str] = ()) -> str:
    """Return rows of the summary (records, or summary.csv as read) as aligned Markdown."""
    shown = chosen_columns(records, columns)
    body = [[_cell(record, column) for column in shown] for record in records]
    return aligned([column.name for column in shown], body, [column.decimals is None for column in shown])


def _cell(record: Record, column: Column) -> str:
    """Write a value for people, nothing for what is not defined; numbers read from a CSV come as text."""
    value = record.get(column.name)
    if value is None or not _told(value):
        return ""
    if column.decimals is None:
        return str(value)
    number = float(f"{float(value):.6g}")  # as summary.csv has it: 0.0175 is not 0.017 here and 0.018 there
    if column.name.endswith("_needed"):
        return rough(number)
    if column.name.startswith("p_") and 0 <= number < 10**-column.decimals:
        return f"<{10**-column.decimals:g}"
    return "" if math.isnan(number) else f"{number:.{column.decimals}f}"


def _told(value: Any) -> bool:
    return value is not None and value != "" and not (isinstance(value, float) and math.isnan(value))
