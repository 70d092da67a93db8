"""The logs of an evaluation, for people: one a checkpoint and seed, `name: value` lines, a section a data set."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

Row = Mapping[str, Any]
_SHOWN = (
    ("prompt", "prompt"),
    ("method", "method"),
    ("pairs", "n_pairs"),
    ("contexts", "n_contexts"),
    ("pairs left out (the label is a tie)", "n_label_ties"),
    ("answers", "n_judgements"),
    ("answers a side", "n_samples"),
    ("accuracy (a tie is 1/2)", "accuracy"),
    ("strict accuracy (a tie is 0)", "strict_accuracy"),
    ("accuracy without ties", "nontie_accuracy"),
    ("tie rate", "tie_rate"),
    ("longer wins (baseline)", "longer_wins"),
    ("length correlation", "length_correlation"),
    ("coverage", "coverage"),
    ("unparsed rate (answers)", "unparsed_rate"),
    ("truncated rate (answers)", "truncated_rate"),
    ("unparsed pairs count as", "unparsed"),
    ("BT temperature", "bt_temp"),
    ("BT log-loss", "bt_log_loss"),
    ("fitted temperature", "fitted_temp"),
    ("log-loss at temperatures of other folds", "fitted_log_loss"),
    ("log-loss of a coin", "log_loss_baseline"),
    ("Brier score (a coin: 0.25)", "brier"),
    ("expected calibration error", "ece"),
    ("AUC of |margin|", "auc_margin"),
    ("area under risk-coverage", "aurc"),
    ("one answer a side, all pairs of answers", "allpairs_accuracy"),
    ("one answer a side, aligned answers", "aligned_accuracy"),
    ("mass on scores", "mass"),
)
_UNCERTAINTY = (
    ("uncertain scores (--unc-low to --unc-high)", "uncertain_rate"),
    ("mean score", "score_mean"),
    ("standard deviation of scores", "score_std"),
    ("entropy of scores, bits", "score_entropy"),
    ("distinct scores", "score_support"),
    ("variance within a response", "within_variance"),
    ("variance between responses", "between_variance"),
    ("intraclass correlation", "intraclass_correlation"),
)
_TAILS = ("margin", "margin_correct", "margin_wrong", "loss")
_QUANTILE = re.compile(r"_p(\d+)\Z")


def log_texts(
    rows: Sequence[Row], nested: Sequence[Row], *, margins: bool = False, uncertainty: bool = False
) -> dict[str, str]:
    """Return {file name: text}, from rows of eval.jsonl and of details.jsonl that belong together.

    `margins` and `uncertainty` add their part to each section.
    """
    both = sorted(zip(rows, nested, strict=True), key=lambda found: _file(found[0]))
    texts: dict[str, str] = {}
    for name, found in groupby(both, key=lambda found: _file(found[0])):
        of_file = list(found)
        first = of_file[0][0]
        lines = [f"checkpoint: {first['checkpoint']}", f"seed: {first['seed']}"]
        for row, detail in of_file:
            lines += ["", f"[{row['dataset']}]", *_lines(row, _SHOWN), *_listed(row, detail)]
            lines += _margins(row) if margins else []
            lines += _lines(row, _UNCERTAINTY) if uncertainty else []
        texts[name] = "\n".join(lines) + "\n"
    return texts


def _file(row: Row) -> str:
    """Name a file; a label may be a path."""
    return f"eval_{str(row['checkpoint']).replace('/', '_')}_seed{row['seed']}.log"


def _lines(row: Row, shown: Sequence[tuple[str, str]]) -> Iterator[str]:
    for title, name in shown:
        text = _text(row.get(name))
        if text:
            low, high = _text(row.get(f"{name}_low")), _text(row.get(f"{name}_high"))
            yield f"{title}: {text}" + (f" [{low}, {high}]" if low and high else "")


def _listed(row: Row, detail: Row) -> Iterator[str]:
    outcomes = {name.removeprefix("rate_"): row[name] for name in row if name.startswith("rate_")}
    for name, rate in outcomes.items():
        if rate and name not in ("scored", "truncated"):
            yield f"answers {name}: {_text(rate)}"
    curves = {at["k"]: (at["accuracy"], of["accuracy"]) for at, of in zip(*_curves(detail), strict=True)}
    for k, (mean, majority) in curves.items():
        if k > 1:
            yield f"{k} answers a side, by their means: {_text(mean)}"
            yield f"{k} answers a side, by majority: {_text(majority)}"
    for subset in detail["subsets"]:
        interval = f"[{_text(subset['low'])}, {_text(subset['high'])}]"
        yield f"accuracy on {subset['name']} ({subset['n']} pairs): {_text(subset['accuracy'])} {interval}"
    for score in detail["official"]:
        yield f"official, {score['name']}: {_text(score['value'])}"


def _curves(detail: Row) -> tuple[Sequence[Row], Sequence[Row]]:
    return detail["mean_at_k"], detail["majority_at_k"]


def _margins(row: Row) -> Iterator[str]:
    for name in _TAILS:
        cells = [(match[1], row[key]) for key in row if (match := _QUANTILE.search(key)) and key == f"{name}{match[0]}"]
        told = [f"p{quantile} {_text(value)}" for quantile, value in cells if _text(value)]
        if told:
            yield f"{name.replace('_', ', ')}: {', '.join(told)}"


def _text(value: Any) -> str:
    """Write a value; nothing for what is not defined."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
