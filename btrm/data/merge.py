"""Several answers about a pair become one verdict of it.

- none: every answer stands for itself;
- mean: a side's score is the mean over samples, of all teachers alike;
- vote: each sample votes for the side that it scores higher, and equal scores vote for neither. The side with more
  votes wins; each side's score is the median over the samples that voted so. A tie of votes is a tie: both sides get
  the median of all scores.

Means and votes are over the samples that have scored both sides, wherever there is one: else the sides would be
compared by different samples' scales. What the other samples have scored is left out as unpaired.

Scores are rounded to the scale's decimals, halves up, so that a vote that is won stays won; a side's rationale is that
of the answer, among those that its score is made of, nearest to it (the first of several).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

from btrm.data.answers import Answer, Sample
from btrm.scores import Outcome, Scale

Merge = Literal["none", "mean", "vote"]


@dataclass(frozen=True, slots=True)
class Side:
    """A side's score, the answer whose rationale is kept, and all the answers that the score is made of."""

    score: float
    answer: Answer
    behind: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said about a pair; a side without a scored answer is None. `left_out`: answers that are in no score."""

    teacher: int | None
    sides: tuple[Side | None, Side | None]
    scale: Scale
    left_out: list[tuple[Answer, str]] = field(default_factory=list[tuple[Answer, str]])

    @property
    def margin(self) -> float | None:
        """Side 0's score less side 1's, in the scale's own steps (4.1 - 3.6 is 0.5); None where either has none."""
        one, other = self.sides
        return None if one is None or other is None else round(one.score - other.score, self.scale.decimals)


def verdicts(merge: Merge, samples: Mapping[Sample, Sequence[Answer]], scale: Scale) -> list[Verdict]:
    """Return what is said about a pair: a verdict a sample, or one of all."""
    if merge == "none":
        return [_mean([sides], scale, teacher) for (teacher, _), sides in samples.items()]
    return [(_mean if merge == "mean" else _vote)(list(samples.values()), scale)]


def _mean(samples: Sequence[Sequence[Answer]], scale: Scale, teacher: int | None = None) -> Verdict:
    paired, left_out = _paired(samples)
    answers = [answer for sides in paired for answer in sides]
    one, other = (_side(mine, _rounded_mean(_units(mine, scale)), scale) for mine in _by_side(answers))
    return Verdict(teacher, (one, other), scale, left_out)


def _vote(samples: Sequence[Sequence[Answer]], scale: Scale) -> Verdict:
    paired, left_out = _paired(samples)
    votes = [_vote_of(sides) for sides in paired]
    lead = votes.count(1) - votes.count(-1)
    if lead == 0:
        pool = [answer for sides in paired for answer in sides]
        return Verdict(None, _undecided(pool, votes, scale), scale, left_out)
    winner = 1 if lead > 0 else -1
    voted = list(zip(paired, votes, strict=True))
    voters = [a for sides, vote in voted if vote == winner for a in sides]
    outvoted = [(a, "outvoted") for sides, vote in voted if vote != winner for a in sides if _is_scored(a)]
    one, other = (_side(mine, _median(_units(mine, scale)), scale) for mine in _by_side(voters))
    return Verdict(None, (one, other), scale, [*left_out, *outvoted])


def _paired(samples: Sequence[Sequence[Answer]]) -> tuple[Sequence[Sequence[Answer]], list[tuple[Answer, str]]]:
    """Return the samples with both sides scored, or all where there is none; and the answers that are in no score."""
    unscored = _unscored(answer for sides in samples for answer in sides)
    whole = [sides for sides in samples if _vote_of(sides) is not None]
    if not whole:
        return samples, unscored
    lone = [(a, "unpaired") for sides in samples if _vote_of(sides) is None for a in sides if _is_scored(a)]
    return whole, [*unscored, *lone]


def _undecided(answers: Sequence[Answer], votes: Sequence[int | None], scale: Scale) -> tuple[Side | None, Side | None]:
    """Return a tie, both sides at one score; or, where no sample has scored both, each side at its own."""
    sides = _by_side(answers)
    pools = sides if all(vote is None for vote in votes) else [[a for mine in sides for a in mine]] * 2
    one, other = (_side(mine, _median(_units(pool, scale)), scale) for mine, pool in zip(sides, pools, strict=True))
    return one, other


def _vote_of(sides: Iterable[Answer]) -> int | None:
    """Return 1 for side 0, -1 for side 1, 0 for neither; None without two scores."""
    score = {a["side"]: cast(float, a["score"]) for a in sides if _is_scored(a)}
    return (score[0] > score[1]) - (score[0] < score[1]) if len(score) == 2 else None


def _side(answers: Sequence[Answer], units: int | None, scale: Scale) -> Side | None:
    if units is None or not answers:
        return None
    score = units / 10**scale.decimals
    return Side(score, min(answers, key=lambda answer: abs(answer["score"] - score)), tuple(answers))


def _by_side(answers: Iterable[Answer]) -> list[list[Answer]]:
    scored = [answer for answer in answers if _is_scored(answer)]
    return [[answer for answer in scored if answer["side"] == side] for side in (0, 1)]


def _is_scored(answer: Answer) -> bool:
    return answer["outcome"] == Outcome.SCORED


def _unscored(answers: Iterable[Answer]) -> list[tuple[Answer, str]]:
    return [(answer, str(answer["outcome"])) for answer in answers if not _is_scored(answer)]


def _units(answers: Iterable[Answer], scale: Scale) -> list[int]:
    """Return scores as whole numbers of the scale's smallest step, which add up exactly."""
    return [round(answer["score"] * 10**scale.decimals) for answer in answers]


def _rounded_mean(units: Sequence[int]) -> int | None:
    return (2 * sum(units) + len(units)) // (2 * len(units)) if units else None


def _median(units: Sequence[int]) -> int | None:
    ordered, half = sorted(units), len(units) // 2
    return _rounded_mean(ordered[max(0, half - 1 + len(units) % 2) : half + 1])
