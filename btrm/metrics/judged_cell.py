"""Judgements as arrays: a block for each (judge, data set, seed, prompt), pairs in one order."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from btrm.metrics.pair_facts import PairFacts
from btrm.metrics.pairwise import Floats, Ints, PairOutcomes, SideScores, UnparsedAs, pair_outcomes, sides_of_samples
from btrm.records import Method
from btrm.scores import Outcome


@dataclass(frozen=True, eq=False)
class TiedPairs:
    """The P pairs of a cell whose label is a tie; shapes and numbers as in JudgedCell."""

    label_id_P: list[str]
    pair_id_P: list[str]
    cluster_P: Ints
    score_P2K: Floats
    asked_P2: Ints
    facts: PairFacts | None


@dataclass(frozen=True, eq=False)
class JudgedCell:
    """What one judge said at one seed about the labelled pairs of one data set.

    P pairs, K samples a side at most, R judgements of the pairs. `score_P2K` is NaN where a sample has no score or was
    not asked for (`asked_P2` counts those that were); `mass_R` is what an expected score's model had on numerals of the
    scale at all, NaN for other scores; `pair_R` is the place of the pair that each judgement is about. Pairs of one
    `cluster_P` share a context (where the pairs are not at hand: are one pair with several labels); the numbers are
    those of the whole file, so cells compare. Pairs whose label is a tie have no right answer: they are counted in
    `label_ties`, are in no array, and stand in `tied` for the official scores that know ties.
    """

    judge: str
    dataset: str
    seed: int
    prompt: str
    method: Method
    label_id_P: list[str]
    pair_id_P: list[str]
    cluster_P: Ints
    preferred_P: Ints
    score_P2K: Floats
    asked_P2: Ints
    outcome_R: NDArray[np.str_]
    label_ties: int
    facts: PairFacts | None = None
    tied: TiedPairs | None = None
    mass_R: Floats = field(default_factory=lambda: np.empty(0))
    pair_R: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @cached_property
    def sides(self) -> SideScores:
        """The scores of each side brought together."""
        return sides_of_samples(self.score_P2K, self.asked_P2)

    @cached_property
    def scored_N(self) -> Floats:
        """All scores that there are, pair after pair."""
        return self.score_P2K[~np.isnan(self.score_P2K)]

    def outcomes(self, bt_temp: float, unparsed: UnparsedAs, scale: tuple[float, float]) -> PairOutcomes:
        """Compare the sides of each pair; `scale` is the (lowest, highest) score of the prompt."""
        return pair_outcomes(self.sides, self.preferred_P, bt_temp, unparsed, scale)

    @cached_property
    def is_repeated(self) -> bool:
        """Whether a side has several answers that are draws: of a method that draws none, copies are one answer."""
        low_P2 = np.nanmin(self.score_P2K, axis=2, initial=np.inf)
        differ = bool(np.any(np.nanmax(self.score_P2K, axis=2, initial=-np.inf) > low_P2))
        return int(self.asked_P2.max(initial=0)) > 1 and (self.method == "sampled" or differ)

    def rates(self) -> dict[str, tuple[Floats, Floats]]:
        """Return {rate: (answers of each pair that count, all of them)}: without a valid score, and cut off."""
        pairs, answers_P = len(self.label_id_P), np.bincount(self.pair_R, minlength=len(self.label_id_P))
        counted = {
            "unparsed_rate": self.outcome_R != Outcome.SCORED,
            "truncated_rate": self.outcome_R == Outcome.TRUNCATED,
        }
        of_pairs = {name: np.bincount(self.pair_R[is_R], minlength=pairs) for name, is_R in counted.items()}
        return {name: (count_P.astype(np.float64), answers_P.astype(np.float64)) for name, count_P in of_pairs.items()}


def clusters(id_P: list[str]) -> Ints:
    """Return cluster_P: equal ids share one number (0, 1, ... as they appear), and are resampled together."""
    number = {name: i for i, name in enumerate(dict.fromkeys(id_P))}
    return np.array([number[name] for name in id_P], dtype=np.int64)
