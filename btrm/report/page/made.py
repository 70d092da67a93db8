"""How the numbers were made, in sentences: settings, counts, rules, and what is missing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import btrm
from btrm.metrics.few_contexts import FEW, PERCENTILES_FROM
from btrm.report.page.svg import plain
from btrm.report.page.values import number
from btrm.report.report_input import ReportInput, Row

_RULES = {
    "tie": "A pair with a side that has no score counts as a tie (half the credit, margin 0, loss ln 2): nothing is "
    "dropped (intention to treat).",
    "wrong": "A pair with a side that has no score counts as wrong, and an answer without a score takes the score that "
    "hurts most.",
    "drop": "Pairs with a side that has no score are left out: these accuracies are of the other pairs only, and must "
    "be read beside the unparsed rate.",
}
_INTERVALS = (
    "Intervals are 95 % expanded percentile bootstrap intervals over contexts: all pairs of one context, and all "
    "labels of one pair, are drawn together; where the texts are not known, over pairs. "
    f"With fewer than {PERCENTILES_FROM} contexts they are Student's t with the jackknife's error, of a rate by its "
    "logit; where all contexts are alike (a rate of 0 or 1), what so many of them leave open (Clopper and Pearson). "
    "Losses at fitted temperatures have theirs by the root of what is gained on a coin.",
    "Seeds are replicates of a pair: they are averaged within it, and are not counted as more data. Intervals of other "
    "metrics than (strict) accuracies and their differences are the means of the seeds' own.",
)


def how_it_was_made(tables: ReportInput) -> list[str]:
    """Return the sentences, in the order in which a reviewer asks."""
    return [
        *(_data_set(name, rows) for name, rows in _by_data_set(tables.evals).items()),
        *_scoring(tables.evals),
        *_INTERVALS,
        *_losses(tables.evals),
        *_comparisons(tables.comparisons),
        *_selection(tables),
        *_missing(tables.records),
        *few_contexts(tables.evals),
        *tables.notes,
        f"Every number can be made again from judgements.parquet, without a GPU (btrm {btrm.__version__}).",
    ]


def _by_data_set(evals: Sequence[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in evals:
        groups.setdefault(str(row["dataset"]), []).append(row)
    return groups


def _data_set(name: str, rows: Sequence[Row]) -> str:
    seeds = sorted({int(row["seed"]) for row in rows})
    checkpoints = {row["checkpoint"] for row in rows}
    ties = max((int(row.get("n_label_ties") or 0) for row in rows), default=0)
    without = f" ({_count(ties, 'pair')} whose label is a tie {'is' if ties == 1 else 'are'} left out)" if ties else ""
    samples = _spread(rows, "n_samples")
    each = f", {samples} {'sample' if samples == '1' else 'samples'} a side" if samples else ""
    named = ", ".join(map(str, seeds))
    return (
        f"{name}: {_count(len(checkpoints), 'checkpoint')} on {_spread(rows, 'n_pairs')} labelled pairs{without}, "
        f"{_count(len(seeds), 'seed')} ({named}){each}."
    )


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _spread(rows: Sequence[Row], key: str) -> str:
    known = [value for row in rows if math.isfinite(value := number(row.get(key)))]
    if not known:
        return ""
    low, high = min(known), max(known)
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"


def _distinct(rows: Iterable[Row], key: str) -> list[str]:
    return list(dict.fromkeys(str(row[key]) for row in rows if row.get(key) is not None))


def _scoring(evals: Sequence[Row]) -> list[str]:
    ways = {
        "sampled": "the mean of its sampled answers' scores",
        "expected": "the expectation over the score tokens' probabilities",
        "greedy": "that of one greedy answer",
    }
    methods = _distinct(evals, "method")
    said = [f"Prompt: {', '.join(_distinct(evals, 'prompt'))}."] if _distinct(evals, "prompt") else []
    if methods:
        said.append(f"A side's score is {'; or '.join(ways.get(m, m) for m in methods)}.")
    said += [f"Scores run from {low} to {high}." for low, high in _scales(evals)]
    said += [_RULES[rule] for rule in _distinct(evals, "unparsed") if rule in _RULES]
    return [
        *said,
        "Accuracy is the share of pairs whose preferred side has the higher score; a tie of scores counts ½ "
        "(strict accuracy: 0).",
    ]


def _scales(evals: Sequence[Row]) -> list[tuple[str, str]]:
    ends = ((number(row.get("scale_low")), number(row.get("scale_high"))) for row in evals)
    return list(dict.fromkeys((plain(low), plain(high)) for low, high in ends if math.isfinite(low + high)))


def _losses(evals: Sequence[Row]) -> list[str]:
    temperatures = _distinct(evals, "bt_temp")
    if not temperatures:
        return []
    given = ", ".join(plain(number(temperature)) for temperature in temperatures)
    return [
        f"Log-loss is −ln σ(Δ/T) in nats, Δ the preferred side's score less the other's, at T = {given}; the fitted "
        "one takes a T that was fitted on other contexts (cross-fitted). A judge that always says ½ has ln 2 = "
        f"{math.log(2):.3f}."
    ]


def _comparisons(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    return [
        "Checkpoints are compared on the same pairs, two-sided: paired bootstrap over contexts (Student's t "
        "where they are few, and never a p below that of their signs), and McNemar's mid-p. "
        "Holm's adjustment is over all comparisons of one kind (with the baseline, with the one before, with the best) "
        "on all data sets; where the best was selected, any two checkpoints count as compared. "
        f"{len(rows):,} comparisons in all."
    ]


def _selection(tables: ReportInput) -> list[str]:
    if tables.best_checkpoint is None:
        return []
    if tables.own_test_set:
        return [
            f"{tables.best_checkpoint} was selected on the data that its number is reported on. The highest of several "
            "noisy numbers is too high on average: judge it again on data that had no part in the choice."
        ]
    return [f"{tables.best_checkpoint} was selected on other data than its number is reported on."]


def few_contexts(evals: Sequence[Row]) -> list[str]:
    """Say where intervals hang on so few draws that their 95 % is not to be taken at its word."""
    few = {
        str(row["dataset"]): contexts
        for row in evals
        if math.isfinite(contexts := number(row.get("n_contexts"))) and contexts < FEW
    }
    named = ", ".join(f"{name} has {_count(round(n), 'context')}" for name, n in few.items())
    return [f"Few contexts: intervals and p-values are rough ({named})."] if few else []


def _missing(records: Sequence[Row]) -> list[str]:
    lacks = [f"{r['checkpoint']} on {r['dataset']}: {r['missing']}" for r in records if r.get("missing")]
    if not lacks:
        return ["No cell of the grid is missing."]
    return [f"Missing, so that these rows do not compare with the others on equal terms: {'; '.join(lacks)}."]
