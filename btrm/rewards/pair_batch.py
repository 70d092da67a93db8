"""Completions of both sides of many pairs as arrays; who is compared with whom.

Shapes: N completions, P pairs. Side s of pair p is group 2p + s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

import numpy as np
from numpy.typing import NDArray

from btrm.config import ConfigError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Scores of completions, each of one side of one pair; rows stand in any order.

    `margin_N` > 0 agrees with the label; NaN = no score. `pair_N` indexes `pair_ids`.
    """

    score_N: Floats
    pair_N: Ints
    side_N: Ints
    preferred_side_N: Ints
    pair_ids: Sequence[str | int]

    @classmethod
    def build(
        cls,
        scores: Sequence[float] | Floats,
        pair_id: Sequence[str] | Sequence[int] | NDArray[Any],
        side: Sequence[int] | NDArray[Any],
        preferred_side: Sequence[int] | NDArray[Any],
        lone_side: Literal["raise", "penalise"] = "raise",
    ) -> Self:
        """Check and index one batch; a score is a number or NaN.

        Raises ConfigError for columns of other lengths, sides that are not 0 or 1, a pair whose rows disagree on
        preferred_side, and, unless lone sides are to be penalised, a pair with one side only; it names the pairs.
        """
        lengths = {
            "scores": len(scores),
            "pair_id": len(pair_id),
            "side": len(side),
            "preferred_side": len(preferred_side),
        }
        if len(set(lengths.values())) > 1:
            raise ConfigError(f"columns of different lengths: {lengths}")
        score_N = np.asarray(scores, np.float64)
        pair_N, pair_ids = _index(pair_id)
        sides = [_sides(name, values, pair_id) for name, values in (("side", side), ("preferred_side", preferred_side))]
        batch = cls(score_N, pair_N, sides[0], sides[1], pair_ids)
        batch._check(lone_side)
        return batch

    def __len__(self) -> int:
        """Return N."""
        return len(self.score_N)

    @property
    def group_N(self) -> Ints:
        """Group of each completion: one side of one pair, which is one prompt."""
        return 2 * self.pair_N + self.side_N

    @property
    def sign_N(self) -> Floats:
        """+1 on the preferred side, -1 on the other."""
        return np.where(self.side_N == self.preferred_side_N, 1.0, -1.0)

    @property
    def margin_N(self) -> Floats:
        """Margin over the mean opponent: > 0 agrees with the label; NaN without a score or an opponent."""
        return self.sign_N * (self.score_N - self.mean_opponent_N)

    @property
    def group_mean(self) -> Floats:
        """Mean score of each group, shape 2P; NaN where it has no score."""
        scored = ~np.isnan(self.score_N)
        group = self.group_N[scored]
        size = 2 * len(self.pair_ids)
        total = np.bincount(group, self.score_N[scored], size)
        count = np.bincount(group, minlength=size)
        return np.divide(total, count, out=np.full(size, np.nan), where=count > 0)

    @property
    def mean_opponent_N(self) -> Floats:
        """Mean score of the other side."""
        return self.group_mean[self.group_N ^ 1]

    @property
    def aligned_opponent_N(self) -> Floats:
        """Score of the other side's completion of the same rank: the j-th against the j-th; NaN where there is none."""
        group_N = self.group_N
        order = np.argsort(group_N, kind="stable")
        count = np.bincount(group_N, minlength=2 * len(self.pair_ids))
        start = np.cumsum(count) - count
        rank_N = np.empty_like(order)
        rank_N[order] = np.arange(len(order)) - start[group_N[order]]
        other = group_N ^ 1
        met = rank_N < count[other]
        opponent_N = np.full(len(order), np.nan)
        opponent_N[met] = self.score_N[order[start[other[met]] + rank_N[met]]]
        return opponent_N

    @property
    def pair_margin_N(self) -> Floats:
        """Mean score of the preferred side minus the other's, the same on all rows of a pair."""
        mean = self.group_mean
        preferred = 2 * self.pair_N + self.preferred_side_N
        return mean[preferred] - mean[preferred ^ 1]

    def _check(self, lone_side: str) -> None:
        count = len(self.pair_ids)
        preferred = np.zeros(count, np.int64)
        preferred[self.pair_N] = self.preferred_side_N
        problems: list[str] = []
        disagree = np.unique(self.pair_N[preferred[self.pair_N] != self.preferred_side_N])
        if len(disagree):
            problems.append(f"rows disagree on preferred_side in {self._names(disagree)}")
        lone = np.flatnonzero((np.bincount(self.group_N, minlength=2 * count).reshape(count, 2) == 0).any(axis=1))
        if len(lone) and lone_side == "raise":
            problems.append(
                f"one side only in {self._names(lone)}: both sides of a pair must be in one batch, "
                "or take lone_side=penalise"
            )
        if problems:
            raise ConfigError("; ".join(problems))

    def _names(self, pairs: NDArray[np.int64]) -> str:
        names = ", ".join(repr(self.pair_ids[p]) for p in pairs[:5])
        return f"pair_id {names}" + (f" and {len(pairs) - 5} more" if len(pairs) > 5 else "")


def _index(pair_id: Sequence[str] | Sequence[int] | NDArray[Any]) -> tuple[Ints, Sequence[str | int]]:
    """Return (index of each row's pair, pair ids in order of first appearance). Hashing beats sorting here."""
    import pyarrow as pa

    try:
        encoded = pa.array(pair_id).dictionary_encode()
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ConfigError(f"pair_id: neither all text nor all integers ({error})") from None
    if encoded.null_count or not (
        pa.types.is_integer(encoded.type.value_type) or pa.types.is_string(encoded.type.value_type) or not len(encoded)
    ):
        raise ConfigError(f"pair_id: text or integers, got {encoded.type.value_type}")
    return encoded.indices.to_numpy().astype(np.int64), cast(Any, encoded.dictionary.to_pylist())


def _sides(name: str, values: Sequence[int] | NDArray[Any], pair_id: Sequence[Any] | NDArray[Any]) -> Ints:
    sides = np.asarray(values)
    bad = np.flatnonzero((sides != 0) & (sides != 1))
    if len(bad):
        raise ConfigError(f"{name}: must be 0 or 1, got {values[bad[0]]!r} for pair_id {pair_id[bad[0]]!r}")
    return sides.astype(np.int64)
