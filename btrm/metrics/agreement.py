"""How far two judges agree about the same pairs, and which of them is right more often.

A pair counts where both judges judged it. Scores are means over samples; a preference is the side with the higher mean,
a tie where both are equal. Intervals (95 %) resample pair_ids, as those of `evaluate` resample contexts, and the
difference of the accuracies is paired: both judges see the same resamples.

- kappa (Cohen 1960) over side 0, side 1 and tie: (p_o - p_e) / (1 - p_e), p_e from the judges' own frequencies;
- correlations of scores: Pearson's r, and Spearman's rho, which is r of the ranks, mean ranks for equal scores.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from btrm.config import ConfigError
from btrm.metrics.bootstrap import Interval
from btrm.metrics.correlation import pearson, spearman
from btrm.metrics.decisions import comparison
from btrm.metrics.judged import clusters
from btrm.metrics.pairwise import Floats, side_scores
from btrm.metrics.panel import Panel
from btrm.metrics.position import PositionBias, position_bias
from btrm.prompts import get_prompt
from btrm.records import read_judgements

_COLUMNS = (
    *("judge", "prompt", "label_id", "pair_id", "side", "preferred_side", "score"),
    *("seed", "sample", "shown_first"),
)
_RESAMPLES = 2000
JUDGEMENTS = "judgements.parquet"


@dataclass(frozen=True, slots=True)
class Scores:
    """A judge's mean scores: a row a label, NaN where a side has none; `preferred_P` is NaN for a label that ties.

    `leads` are, by label and for each answer about both sides, the score of the side shown first less the other's.
    """

    path: Path
    judge: str
    scale: str
    label_ids: list[str]
    pair_ids: list[str]
    preferred_P: Floats
    score_P2: Floats
    leads: Mapping[str, Sequence[float]]

    def only(self, labels: Set[str]) -> Scores:
        """Return the scores of these labels alone."""
        kept = [number for number, label in enumerate(self.label_ids) if label in labels]
        return replace(
            self,
            label_ids=[self.label_ids[number] for number in kept],
            pair_ids=[self.pair_ids[number] for number in kept],
            preferred_P=self.preferred_P[kept],
            score_P2=self.score_P2[kept],
        )


@dataclass(frozen=True, slots=True)
class Differing:
    """A pair, both judges' margins (side 0 less side 1), and how far these are apart."""

    label_id: str
    margin_a: float
    margin_b: float
    apart: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two judges on their common pairs; rates lie in [0, 1], NaN is undefined.

    `compared` of the `common` pairs have two scores by both judges; agreement, kappa and correlations are over those,
    accuracies over all common pairs with a label, where a missing score is wrong. `position` is how each judge favours
    what it is shown first, over its answers about both sides of common pairs.
    """

    judges: tuple[str, str]
    common: int
    only: tuple[int, int]
    coverage: tuple[float, float]
    compared: int
    agreement: float
    agreement_interval: Interval
    kappa: float
    pearson: float
    spearman: float
    mean_difference: float
    labelled: int
    accuracy: tuple[float, float]
    accuracy_lead: float
    accuracy_lead_interval: Interval
    position: tuple[PositionBias, PositionBias]
    differing: list[Differing]


def read_scores(where: Path) -> Scores:
    """Return the scores of one judge, from its stage's directory or its judgements.parquet.

    Raises ConfigError where there is no such file, several judges or scales, or no judgement.
    """
    path = where / JUDGEMENTS if where.is_dir() else where
    if not path.is_file():
        raise ConfigError(f"{where}: no {JUDGEMENTS}; expected that file, or the directory of a stage that wrote it")
    table = read_judgements(path).select(list(_COLUMNS))
    columns: dict[str, Any] = {name: table[name].to_numpy(zero_copy_only=False) for name in _COLUMNS}
    judges = list(dict.fromkeys(cast("list[str]", list(columns["judge"]))))
    scales = {get_prompt(name).scale.name for name in set(columns["prompt"])}
    if len(judges) != 1 or len(scales) != 1:
        raise ConfigError(f"{path}: expected one judge on one scale, found {judges} on {sorted(scales)}")
    place = {label: number for number, label in enumerate(dict.fromkeys(columns["label_id"]))}
    label_R = np.array([place[label] for label in columns["label_id"]], dtype=np.int64)
    _, first = np.unique(label_R, return_index=True)
    score_R, side_R = columns["score"].astype(np.float64), columns["side"].astype(np.int64)
    return Scores(
        path=path,
        judge=judges[0],
        scale=scales.pop(),
        label_ids=list(place),
        pair_ids=list(columns["pair_id"][first]),
        preferred_P=columns["preferred_side"][first].astype(np.float64),
        score_P2=side_scores(score_R, label_R, side_R, len(place)).means(),
        leads=_leads(columns, score_R),
    )


def _leads(columns: Mapping[str, Any], score_R: Floats) -> dict[str, list[float]]:
    scores: defaultdict[tuple[str, int, int], dict[bool, float]] = defaultdict(dict)
    rows = zip(*(columns[name] for name in ("label_id", "seed", "sample", "shown_first")), score_R, strict=True)
    for label, seed, sample, first, score in rows:
        if first is not None and not math.isnan(score):
            scores[label, seed, sample][bool(first)] = float(score)
    leads: defaultdict[str, list[float]] = defaultdict(list)
    for (label, _, _), score in scores.items():
        if len(score) == 2:
            leads[label].append(score[True] - score[False])
    return dict(leads)


def _position(judge: Scores, labels: Sequence[str], pair_ids: Sequence[str], seed: int) -> PositionBias:
    found = [(lead, pair) for label, pair in zip(labels, pair_ids, strict=True) for lead in judge.leads.get(label, ())]
    return position_bias([lead for lead, _ in found], [pair for _, pair in found], seed)


def agreement(a: Scores, b: Scores, most: int = 10, seed: int = 0) -> Agreement:
    """Compare two judges; `most` pairs on which they differ most are named.

    Raises ConfigError, with both files, where they have no pair in common, other pairs under one label_id, or other
    scales.
    """
    place = {label: number for number, label in enumerate(b.label_ids)}
    mine = [number for number, label in enumerate(a.label_ids) if label in place]
    theirs = [place[a.label_ids[number]] for number in mine]
    _comparable(a, b, mine, theirs)
    scores_a, scores_b = a.score_P2[mine], b.score_P2[theirs]
    pair_ids = [a.pair_ids[number] for number in mine]
    cluster_P = clusters(pair_ids)
    margin_a, margin_b = scores_a[:, 0] - scores_a[:, 1], scores_b[:, 0] - scores_b[:, 1]
    both_P = ~np.isnan(margin_a) & ~np.isnan(margin_b)
    same_P = np.where(both_P, np.sign(margin_a) == np.sign(margin_b), np.nan)
    told_P = ~np.isnan(a.preferred_P[mine])
    label_P = a.preferred_P[mine]
    credit_a, credit_b = (_credit(margin, label_P) for margin in (margin_a, margin_b))
    columns = [same_P, *(np.where(told_P, credit_P, np.nan) for credit_P in (credit_a, credit_b))]
    panel = Panel([column_P[:, None] for column_P in columns], [(1, 2)], cluster_P, _RESAMPLES, seed)
    lead = comparison(panel, 1, 2)
    one, other = scores_a.ravel(), scores_b.ravel()
    scored = ~np.isnan(one) & ~np.isnan(other)
    accuracies = _mean(credit_a[told_P]), _mean(credit_b[told_P])
    labels = [a.label_ids[number] for number in mine]
    return Agreement(
        judges=(a.judge, b.judge),
        common=len(mine),
        only=(len(a.label_ids) - len(mine), len(b.label_ids) - len(mine)),
        coverage=(_mean((~np.isnan(margin_a)).astype(np.float64)), _mean((~np.isnan(margin_b)).astype(np.float64))),
        compared=int(both_P.sum()),
        agreement=_mean(same_P[both_P]),
        agreement_interval=panel.accuracy_interval(0),
        kappa=cohens_kappa(np.sign(margin_a[both_P]), np.sign(margin_b[both_P])),
        pearson=pearson(one[scored], other[scored]),
        spearman=spearman(one[scored], other[scored]),
        mean_difference=_mean(np.abs(one[scored] - other[scored])),
        labelled=int(told_P.sum()),
        accuracy=accuracies,
        accuracy_lead=accuracies[0] - accuracies[1],
        accuracy_lead_interval=Interval(lead.low, lead.high),
        position=(_position(a, labels, pair_ids, seed), _position(b, labels, pair_ids, seed)),
        differing=_differing(labels, margin_a, margin_b, most),
    )


def _comparable(a: Scores, b: Scores, mine: list[int], theirs: list[int]) -> None:
    if a.scale != b.scale:
        raise ConfigError(f"{a.path} is on the scale {a.scale}, {b.path} on {b.scale}: give judges on one scale")
    if not mine:
        raise ConfigError(f"{a.path} and {b.path} have no pair in common: give judges of the same pairs")
    for one, other in zip(mine, theirs, strict=True):
        if a.pair_ids[one] != b.pair_ids[other]:
            pairs = f"pair {a.pair_ids[one]} in {a.path} and pair {b.pair_ids[other]} in {b.path}"
            raise ConfigError(f"label_id {a.label_ids[one]} is {pairs}: give judges of the same pairs")


def cohens_kappa(one_P: Floats, other_P: Floats) -> float:
    """Return Cohen's kappa of two classifications; NaN where chance alone explains everything (or without pairs)."""
    if not len(one_P):
        return math.nan
    classes = np.union1d(one_P, other_P)
    frequency_a, frequency_b = (np.mean(x[:, None] == classes, axis=0) for x in (one_P, other_P))
    chance = float(frequency_a @ frequency_b)
    return math.nan if chance >= 1 else (float(np.mean(one_P == other_P)) - chance) / (1 - chance)


def _credit(margin_P: Floats, preferred_P: Floats) -> Floats:
    """Return 1 where a margin agrees with the label, 1/2 for a tie, 0 else and where a score is missing."""
    agreed_P = np.where(preferred_P == 0, margin_P, -margin_P)
    return np.where(np.isnan(agreed_P), 0.0, 0.5 + 0.5 * np.sign(np.nan_to_num(agreed_P)))


def _differing(labels: list[str], margin_a: NDArray[np.float64], margin_b: Floats, most: int) -> list[Differing]:
    apart_P = np.nan_to_num(np.abs(margin_a - margin_b), nan=-1.0)
    order = np.argsort(-apart_P, kind="stable")[:most]
    found = [Differing(labels[p], float(margin_a[p]), float(margin_b[p]), float(apart_P[p])) for p in order.tolist()]
    return [pair for pair in found if pair.apart > 0]


def _mean(value_N: Floats) -> float:
    return float(value_N.mean()) if len(value_N) else math.nan
