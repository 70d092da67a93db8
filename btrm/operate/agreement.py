"""`btrm agreement`: two judges of the same pairs, as text or JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from btrm.judges.numbered import read_labels
from btrm.metrics.agreement import Agreement, agreement, read_scores
from btrm.metrics.bootstrap import Interval


def compare(one: Path, other: Path, pairs: Path | None, most: int) -> Agreement:
    """Compare two judges, over the pairs of a pairs.parquet where one is given.

    Raises ConfigError for what cannot be compared.
    """
    a, b = read_scores(one), read_scores(other)
    if pairs is not None:
        labels = set(read_labels(pairs, 0))
        a, b = a.only(labels), b.only(labels)
    return agreement(a, b, most)


def to_json(found: Agreement) -> str:
    """Return all figures as one JSON object; what is not defined is null."""
    return json.dumps(_plain(asdict(found)), ensure_ascii=False)


def render(found: Agreement) -> str:
    """Return the figures for people."""
    one, other = found.judges
    (cover_a, cover_b), (right_a, right_b) = found.coverage, found.accuracy
    lines = [
        f"A: {one}",
        f"B: {other}",
        f"pairs          {found.common} in common ({found.only[0]} only in A, {found.only[1]} only in B)",
        f"coverage       A {_share(cover_a)}, B {_share(cover_b)} of them with both sides scored",
        f"agreement      {_share(found.agreement)} ({_interval(found.agreement_interval)}) of {found.compared} pairs",
        f"kappa          {_number(found.kappa)} (side 0, side 1, tie)",
        f"scores         Pearson {_number(found.pearson)}, Spearman {_number(found.spearman)}, "
        f"mean difference {_number(found.mean_difference)}",
        f"accuracy       A {_share(right_a)}, B {_share(right_b)} on {found.labelled} labels; "
        f"A - B {100 * found.accuracy_lead:+.2f} points ({_interval(found.accuracy_lead_interval)})",
    ]
    lines += [
        f"shown first    {name} prefers it in {_share(bias.first_wins)} ({_interval(bias.interval)}) of {bias.n}"
        for name, bias in zip("AB", found.position, strict=True)
        if bias.n
    ]
    if found.differing:
        lines += ["", "they differ most on (margins: side 0 less side 1)"]
        lines += [
            f"  {pair.label_id:<24} A {pair.margin_a:+8.2f}   B {pair.margin_b:+8.2f}" for pair in found.differing
        ]
    return "\n".join(lines)


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2%}"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _interval(interval: Interval) -> str:
    return "95 %: -" if math.isnan(interval.low) else f"95 %: {100 * interval.low:.2f} to {100 * interval.high:.2f}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in cast("list[Any]", value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value
