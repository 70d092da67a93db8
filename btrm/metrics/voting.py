"""What a majority of k answers would be worth, from the n answers that there are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

_EVERY = 16  # every k up to here, then the largest alone


@dataclass(frozen=True, slots=True)
class Votes:
    """The answers about one labelled pair: how many order it as the label does, how many against it, how many tie it.

    `none` lack a score of a side, and vote for nothing.
    """

    right: int
    wrong: int
    tied: int
    none: int

    @property
    def n(self) -> int:
        """All answers."""
        return self.right + self.wrong + self.tied + self.none


@dataclass(frozen=True, slots=True)
class Majority:
    """The expected accuracy of a majority of `k` answers; `pairs` is how many it is over, the same for every k."""

    k: int
    pairs: int
    accuracy: float


def majorities(votes: Sequence[Votes]) -> list[Majority]:
    """Return the expected accuracy of a majority of k answers, for k = 1 .. n: the mean over all subsets of size k.

    n is the most answers that a pair has, and only the pairs with so many count: pairs with fewer may be others in
    kind, and a curve over k must not be one over pairs.
    """
    most = max((vote.n for vote in votes), default=0)
    whole = [vote for vote in votes if vote.n == most]
    found: list[Majority] = []
    for k in [*range(1, min(most, _EVERY) + 1), *range(max(most, _EVERY + 1), most + 1)]:
        found.append(Majority(k, len(whole), math.fsum(credit(vote, k) for vote in whole) / len(whole)))
    return found


@lru_cache(maxsize=1 << 16)
def credit(votes: Votes, k: int) -> float:
    """Return the mean credit of the majority of k answers over all subsets: 1 right, 1/2 a tie, 0 wrong or no vote.

    Of the C(n, k) subsets, C(R, a) C(W, b) C(N, k - a - b) have a right and b wrong answers, N being the others.
    """
    others = votes.tied + votes.none
    won = drawn = 0
    for a in range(min(k, votes.right) + 1):
        for b in range(max(0, k - a - others), min(k - a, votes.wrong, a) + 1):
            ways = math.comb(votes.right, a) * math.comb(votes.wrong, b) * math.comb(others, k - a - b)
            won, drawn = (won + ways, drawn) if a > b else (won, drawn + ways)
    drawn -= math.comb(votes.none, k)  # nobody has voted: no credit
    return (won + drawn / 2) / math.comb(votes.n, k)
