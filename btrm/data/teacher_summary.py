"""What a teacher's verdicts are worth: accuracy, ties, coverage, scores and calibration, as results and as a page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from btrm.data.answers import Answer, Sample
from btrm.data.merge import Verdict, verdicts
from btrm.metrics.bootstrap import percentile_interval, resampled_sums
from btrm.metrics.calibration import Calibration, MarginBin, calibrate, margin_bins
from btrm.metrics.judged import clusters
from btrm.metrics.position import PositionBias, position_bias
from btrm.metrics.voting import Majority, Votes, majorities
from btrm.records import PreferencePair
from btrm.scores import Outcome, Scale

_BARS = 10
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Figures:
    """All figures of the summary. Rates lie in [0, 1]; NaN is undefined."""

    judged: int
    labelled: int
    accuracy: float
    low: float
    high: float
    strict_accuracy: float
    tie_rate: float
    coverage: float
    outcomes: Mapping[str, int]
    histogram: Sequence[int]
    bins: Sequence[MarginBin]
    calibration: Calibration
    longer_wins: float
    position: PositionBias
    majorities: Sequence[Majority]

    def to_json(self) -> dict[str, Any]:
        """Return the figures for a manifest, NaN and infinity as null."""
        votes = [[row.k, row.pairs, _number(row.accuracy)] for row in self.majorities]
        return {
            "judged_pairs": self.judged,
            "teacher_accuracy": _number(self.accuracy),
            "teacher_accuracy_low": _number(self.low),
            "teacher_accuracy_high": _number(self.high),
            "teacher_strict_accuracy": _number(self.strict_accuracy),
            "teacher_tie_rate": _number(self.tie_rate),
            "teacher_coverage": _number(self.coverage),
            "outcomes": dict(self.outcomes),
            "score_histogram": list(self.histogram),
            "bt_temperature": _number(self.calibration.temperature),
            "bt_log_loss": _number(self.calibration.log_loss),
            "calibration_error": _number(self.calibration.ece),
            "longer_wins_accuracy": _number(self.longer_wins),
            "pairwise_answers": self.position.n,
            "shown_first_wins": _number(self.position.first_wins),
            "shown_first_wins_low": _number(self.position.interval.low),
            "shown_first_wins_high": _number(self.position.interval.high),
            "majority_accuracy": votes,
        }

    def of_teacher(self, judge: str) -> dict[str, Any]:
        """Return what one of several teachers is worth by itself, for a manifest."""
        names = ("judged_pairs", "teacher_accuracy", "teacher_accuracy_low", "teacher_accuracy_high")
        values = self.to_json()
        told = {
            name.removeprefix("teacher_"): values[name] for name in (*names, "teacher_tie_rate", "teacher_coverage")
        }
        return {"judge": judge, **told, "labelled": self.labelled}


@dataclass(slots=True)
class Tally:
    """Gathers what the figures are made of, pair by pair. A verdict without two scores is judged, and not correct."""

    scale: Scale
    outcomes: Counter[str] = field(default_factory=Counter[str])
    histogram: list[int] = field(default_factory=lambda: [0] * _BARS)
    judged: int = 0
    ties: int = 0
    whole: int = 0
    _pair_ids: list[str] = field(default_factory=list[str])
    _margins: list[float] = field(default_factory=list[float])
    _preferred: list[int] = field(default_factory=list[int])
    _longer: list[float] = field(default_factory=list[float])
    _votes: list[Votes] = field(default_factory=list[Votes])
    _leads: list[float] = field(default_factory=list[float])
    _led: list[str] = field(default_factory=list[str])

    def add(self, pair: PreferencePair, samples: Mapping[Sample, Sequence[Answer]], said: Iterable[Verdict]) -> None:
        """Count a pair: its answers one by one, and the verdicts that were made of them."""
        leads = [lead for sides in samples.values() if (lead := first_lead(sides)) is not None]
        self._leads += leads
        self._led += [pair.pair_id] * len(leads)
        for answer in (answer for sides in samples.values() for answer in sides):
            self.outcomes[answer["outcome"]] += 1
            if answer["outcome"] == Outcome.SCORED:
                self.histogram[self._bar(answer["score"])] += 1
        for verdict in said:
            self.judged += 1
            self.whole += verdict.margin is not None
            self.ties += verdict.margin == 0
            if pair.preferred is not None:
                self._pair_ids.append(pair.pair_id)
                self._margins.append(math.nan if verdict.margin is None else verdict.margin)
                self._preferred.append(pair.preferred)
        if pair.preferred is not None:
            self._longer.append(longer_credit(pair.responses, pair.preferred))
            self._votes.append(votes_of(verdicts("none", samples, self.scale), pair.preferred))

    def _bar(self, score: float) -> int:
        share = (score - self.scale.low) / (self.scale.high - self.scale.low)
        return min(int(share * _BARS + 1e-9), _BARS - 1)  # 2.2 on a scale from 1 to 5 is a bar's lower edge

    def figures(self) -> Figures:
        """Return the figures; the interval resamples whole pairs, whoever labelled them."""
        margin_P, side0_P = np.array(self._margins), 1.0 - np.array(self._preferred, dtype=np.float64)
        scored_P = ~np.isnan(margin_P)
        agreed_P = np.where(side0_P > 0.5, margin_P, -margin_P)
        credit_P = np.where(scored_P, 0.5 + 0.5 * np.sign(np.where(scored_P, agreed_P, 0.0)), 0.0)
        interval = percentile_interval(_resampled_means(credit_P, self._pair_ids))
        return Figures(
            judged=self.judged,
            labelled=len(credit_P),
            accuracy=_mean(credit_P),
            low=interval.low,
            high=interval.high,
            strict_accuracy=_mean((credit_P == 1).astype(np.float64)),
            tie_rate=self.ties / self.judged if self.judged else math.nan,
            coverage=self.whole / self.judged if self.judged else math.nan,
            outcomes=dict(self.outcomes.most_common()),
            histogram=self.histogram,
            bins=margin_bins(agreed_P[scored_P], self.scale.high - self.scale.low),
            calibration=calibrate(margin_P[scored_P], side0_P[scored_P]),
            longer_wins=_mean(np.array(self._longer)),
            position=position_bias(self._leads, self._led),
            majorities=majorities(self._votes),
        )


def _resampled_means(credit_P: np.ndarray[Any, np.dtype[np.float64]], pair_ids: list[str]):
    if not len(credit_P):
        return np.array([])
    sums_BM = resampled_sums(np.stack([credit_P, np.ones(len(credit_P))], 1), _RESAMPLES, 0, clusters(pair_ids))
    return sums_BM[:, 0] / sums_BM[:, 1]


def first_lead(sides: Sequence[Answer]) -> float | None:
    """Return the score of the response shown first less the other's; None unless both were shown and scored at once."""
    score = {a["shown_first"]: a["score"] for a in sides if a["outcome"] == Outcome.SCORED}
    return score[True] - score[False] if set(score) == {True, False} else None


def longer_credit(responses: tuple[str, str], preferred: int) -> float:
    """Return the credit of the rule that the longer response, in characters, is the better one: 1, 1/2 or 0."""
    lead = len(responses[preferred]) - len(responses[1 - preferred])
    return 0.5 + 0.5 * ((lead > 0) - (lead < 0))


def votes_of(said: Sequence[Verdict], preferred: int) -> Votes:
    """Count how samples vote about a pair with a label."""
    margins = [verdict.margin for verdict in said]
    towards = [0.0 if margin is None else margin * (1 - 2 * preferred) for margin in margins]
    none = margins.count(None)
    return Votes(sum(m > 0 for m in towards), sum(m < 0 for m in towards), towards.count(0) - none, none)


def _mean(value_P: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    return float(value_P.mean()) if len(value_P) else math.nan


def _number(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
