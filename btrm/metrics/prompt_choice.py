"""Prompts side by side: one row of figures each, every two compared on the same pairs, and which one to take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from btrm.config import ConfigError
from btrm.metrics.decisions import Comparison, adjusted, compare_all, more_in_words
from btrm.metrics.few_contexts import FEW
from btrm.metrics.variance import (
    Answers,
    Histogram,
    accuracy_interval,
    expected_correctness,
    mean_tie_rate,
    sample_tie_rate,
    score_histogram,
    unique_scores,
    valid_rate,
    within_std,
    wrong_at_extremes,
    wrong_in_zone,
    wrong_ranges,
)
from btrm.scores import Scale

_ALPHA = 0.05
_FEW_VALID = 0.9


@dataclass(frozen=True, slots=True)
class PromptFigures:
    """What is looked at in one prompt's answers. `zone`: uncertain scores, `ranges`: spreads that are counted."""

    name: str
    scale: Scale
    zone: tuple[float, float]
    ranges: tuple[float, ...]


def prompt_row(prompt: PromptFigures, answers: Answers, n_bootstrap: int, seed: int) -> dict[str, Any]:
    """Return a prompt's row of variance.csv; NaN is not defined."""
    correct = expected_correctness(answers)
    interval = accuracy_interval(answers, n_bootstrap, seed)
    n_pairs = len(answers.preferred_P)
    row: dict[str, Any] = {
        "prompt": prompt.name,
        "n_pairs": n_pairs,
        "n_contexts": len(np.unique(answers.cluster_P)),
        "answers_a_side": float(answers.asked_P2.mean()) if n_pairs else math.nan,
        "valid_rate": valid_rate(answers),
        "accuracy": float(answers.outcomes.credit_P.mean()) if n_pairs else math.nan,
        "accuracy_low": interval.low,
        "accuracy_high": interval.high,
        "expected_correct": correct.half,
        "expected_correct_strict": correct.strict,
        "tie_rate_samples": sample_tie_rate(answers),
        "tie_rate_means": mean_tie_rate(answers),
        "within_std": within_std(answers),
        "unique_scores": unique_scores(answers),
        "n_wrong": int(answers.wrong_P.sum()),
    }
    return row | _wrong(prompt, answers)


def _wrong(prompt: PromptFigures, answers: Answers) -> dict[str, float]:
    """Return what the wrongly ordered pairs look like, each for one side at least and for both."""
    low, high = prompt.zone
    kinds = {"zone": wrong_in_zone(answers, low, high), "extremes": wrong_at_extremes(answers, low, high)}
    kinds |= {f"range_{threshold:g}": wrong_ranges(answers, threshold) for threshold in prompt.ranges}
    return {f"wrong_{kind}_{which}": getattr(of, which) for kind, of in kinds.items() for which in ("any", "both")}


def prompt_histogram(prompt: PromptFigures, answers: Answers) -> Histogram:
    """Return the histogram of a prompt's scores."""
    return score_histogram(answers, prompt.scale.low, prompt.scale.high)


@dataclass(frozen=True, slots=True)
class Contrast:
    """Prompt a less prompt b in accuracy, on the same pairs; p_holm is over all contrasts of the data set."""

    a: str
    b: str
    result: Comparison


def contrasts(answers: Mapping[str, Answers], n_bootstrap: int, seed: int) -> list[Contrast]:
    """Compare each two prompts; raise ConfigError where they are not about the same pairs."""
    names = list(answers)
    credits = [answers[name].outcomes.credit_P[:, None] for name in names]
    if len({len(credit_P1) for credit_P1 in credits}) > 1:
        raise ConfigError(f"{', '.join(names)}: not about the same pairs; judge them all")
    wanted = list(combinations(range(len(names)), 2))
    if not wanted or not len(credits[0]):
        return []
    results = compare_all(credits, wanted, answers[names[0]].cluster_P, n_bootstrap, seed)
    pairs = zip(wanted, adjusted(results), strict=True)
    return [Contrast(names[a], names[b], result) for (a, b), result in pairs]


def choice(rows: Sequence[Mapping[str, Any]], found: Sequence[Contrast]) -> str:
    """Return which prompt to take, and what to hold against that.

    It is the one of the highest accuracy, of alike ones the one with more valid answers; being the highest of several
    makes that number optimistic. Others are not told apart from it at a p_holm of 0.05 and more. Prompts that few
    answers follow are named: their accuracy is mostly that of a coin.
    """
    told = [row for row in rows if not math.isnan(row["accuracy"])]
    if not told:
        return "No prompt can be chosen: there are no labelled pairs."
    best = max(told, key=lambda row: (row["accuracy"], row["valid_rate"]))
    interval = "" if math.isnan(best["accuracy_low"]) else f" [{best['accuracy_low']:.3f}, {best['accuracy_high']:.3f}]"
    chosen = f"; optimistic, the highest of {len(told)} on these pairs" if len(told) > 1 else ""
    said = f"Take {best['prompt']}: accuracy {best['accuracy']:.3f}{interval} on {best['n_pairs']} pairs{chosen}."
    return " ".join([said, *_few_contexts(best["n_contexts"]), *_doubt(best, found), *_few_valid(told)])


def _few_contexts(n_contexts: int) -> list[str]:
    if n_contexts == 1:
        return ["All pairs are of one context: no interval is defined."]
    return [f"They are of {n_contexts} contexts only: intervals are rough."] if n_contexts < FEW else []


def _doubt(best: Mapping[str, Any], found: Sequence[Contrast]) -> list[str]:
    mine = [contrast for contrast in found if best["prompt"] in (contrast.a, contrast.b)]
    alike = [contrast for contrast in mine if not contrast.result.p_holm < _ALPHA]
    if not alike:
        return ["It is better than each of the others."] if mine else []
    others = ", ".join(c.b if c.a == best["prompt"] else c.a for c in alike)
    return [f"It is not told apart from {others}; {_what_would_tell([c.result.pairs_needed for c in alike])}."]


def _what_would_tell(pairs_needed: Sequence[float]) -> str:
    """Say what it takes to tell all of some apart; a prompt that none are needed for is held back by Holm alone."""
    if any(map(math.isnan, pairs_needed)):
        return "how many more pairs would tell is not known"
    return f"{more} tell" if (more := more_in_words(max(pairs_needed))) else "fewer comparisons at once might tell"


def _few_valid(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    few = [f"{row['prompt']} {100 * row['valid_rate']:.0f} %" for row in rows if row["valid_rate"] < _FEW_VALID]
    return [f"Few answers hold a score with {', '.join(few)}: see their outcomes first."] if few else []
