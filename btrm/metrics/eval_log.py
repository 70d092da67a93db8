"""The logs of an evaluation, for people: one a checkpoint and seed, `name: value` lines, a part for each data set.

Names are those of eval.jsonl. An interval (95 %) stands in brackets behind its value, what a number means behind that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from btrm.metrics.few_contexts import FEW

Row = Mapping[str, Any]
_SHOWN = {
    "prompt": "",
    "method": "",
    "n_pairs": "pairs with a label",
    "n_contexts": "contexts that they share",
    "n_label_ties": "pairs left out, since their label is a tie",
    "n_half_judged": "pairs of which a side was not asked about: without a score, but in no unparsed_rate",
    "n_judgements": "answers",
    "n_samples": "answers a side",
    "accuracy": "a tie counts half",
    "strict_accuracy": "a tie counts nothing",
    "nontie_accuracy": "without ties, and without pairs that lack a score where these are ties",
    "tie_rate": "equal scores, or none on a side where that counts as a tie",
    "longer_wins": "accuracy of preferring the longer response",
    "length_correlation": "of score and length, within pairs",
    "coverage": "pairs with a score on both sides",
    "unparsed": "what pairs without one count as",
    "unparsed_rate": "answers without a score",
    "truncated_rate": "answers that met the length limit",
    "bt_temp": "",
    "bt_log_loss": "nats, at bt_temp",
    "fitted_temp": "fitted to all pairs",
    "fitted_log_loss": "nats, at temperatures fitted to other folds",
    "log_loss_baseline": "a coin",
    "brier": "a coin has 1/4",
    "ece": "expected calibration error, over pairs with a score on both sides",
    "auc_margin": "a larger margin tells a right pair from a wrong one",
    "aurc": "area under risk and coverage",
    "allpairs_accuracy": "of one answer a side, all against all",
    "aligned_accuracy": "of one answer a side, sample by sample",
    "mass": "probability on scores",
}
_UNCERTAINTY = {
    "uncertain_rate": "scores from --unc-low to --unc-high",
    "score_mean": "",
    "score_std": "",
    "score_entropy": "bits",
    "score_support": "distinct scores",
    "within_variance": "of answers about one response",
    "between_variance": "of responses",
    "intraclass_correlation": "share of an answer's variance that is the response's",
}
_TAILS = ("margin", "margin_correct", "margin_wrong", "loss")
_QUANTILE = re.compile(r"(.+)_p\d+\Z")


def log_texts(
    rows: Sequence[Row], nested: Sequence[Row], *, margins: bool = False, uncertainty: bool = False
) -> dict[str, str]:
    """Return {file name: text}, from rows of eval.jsonl and of details.jsonl that belong together.

    `margins` and `uncertainty` add their part to each data set.
    """
    both = sorted(zip(rows, nested, strict=True), key=lambda found: _file(found[0]))
    texts: dict[str, str] = {}
    for name, found in groupby(both, key=lambda found: _file(found[0])):
        of_file = list(found)
        lines = [f"checkpoint: {of_file[0][0]['checkpoint']}", f"seed: {of_file[0][0]['seed']}"]
        for row, detail in of_file:
            lines += ["", f"dataset: {row['dataset']}", *_lines(row, _SHOWN), *_listed(row, detail)]
            lines += ["", *_margins(row)] if margins else []
            lines += ["", *_lines(row, _UNCERTAINTY)] if uncertainty else []
        texts[name] = "\n".join(lines) + "\n"
    return texts


def _file(row: Row) -> str:
    """Name a file; a label may look like a path."""
    return f"eval_{str(row['checkpoint']).replace('/', '_')}_seed{row['seed']}.log"


def _lines(row: Row, shown: Mapping[str, str]) -> Iterator[str]:
    for name, meaning in shown.items():
        text = _text(row[name])
        if text:
            low, high = _text(row.get(f"{name}_low")), _text(row.get(f"{name}_high"))
            interval = f" [{low}, {high}]" if low and high else ""
            notes = "; ".join(filter(None, [_few(name, row), meaning]))
            yield f"{name}: {text}{interval}" + (f"  ({notes})" if notes else "")


def _few(name: str, row: Row) -> str:
    """Warn of few contexts, where they are counted."""
    if name != "n_contexts" or row[name] >= FEW:
        return ""
    return "few: intervals are rough" if row[name] > 1 else "one alone: no interval is defined"


def _listed(row: Row, detail: Row) -> Iterator[str]:
    """Write what a cell has several of: outcomes, conventions, curves over k, subsets, official scores."""
    if row["unparsed_rate"]:
        for name in (name for name in row if name.startswith("accuracy_unparsed_") and _text(row[name])):
            yield f"{name}: {_text(row[name])}"
    for name, rate in row.items():
        if name.startswith("rate_") and rate and name not in ("rate_scored", "rate_truncated"):
            yield f"{name}: {_text(rate)}"
    for curve in ("mean_at_k", "majority_at_k"):
        for at in detail[curve][1:]:
            yield f"{curve.removesuffix('k')}{at['k']}: {_text(at['accuracy'])}"
    for subset in detail["subsets"]:
        yield f"subset {subset['name']}: {_text(subset['accuracy'])}{_interval(subset)}  ({subset['n']} pairs)"
    for score in detail["official"]:
        yield f"official {score['name']}: {_text(score['value'])}{_interval(score)}"


def _interval(row: Row) -> str:
    low, high = _text(row["low"]), _text(row["high"])
    return f" [{low}, {high}]" if low and high else ""


def _margins(row: Row) -> Iterator[str]:
    """Write a line of quantiles for all margins, for those of right and of wrong pairs, and for losses."""
    for group in _TAILS:
        names = [name for name in row if (match := _QUANTILE.match(name)) and match[1] == group]
        told = [f"{name}: {_text(row[name])}" for name in names if _text(row[name])]
        if told:
            yield "  ".join(told)


def _text(value: Any) -> str:
    """Write a value (an infinite temperature: inf); nothing for what is not defined."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
