"""Completions of both sides of many pairs as arrays; who is compared with whom.

Shapes: N completions, P pairs. Side s of pair p is group 2p + s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from btrm.config import ConfigError
from btrm.rewards.published import Opponent

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Sides = NDArray[np.int8]


def without_dust(margin: Floats) -> Floats:
    """Round margins, in place, to 9 decimals, and return them.

    Of scores like 3.1, which no float holds, equal means come out 4e-16 apart, and shapes that step at 0 or at a
    threshold would pay a win for it. Scores have one decimal: margins that truly differ do so by far more than 1e-9.
    """
    return np.round(margin, 9, out=margin)


@dataclass(frozen=True)
class PairBatch:
    """Scores of completions, each of one side of one pair; rows stand in any order.

    `margin_N` > 0 agrees with the label; NaN = no score. `pair_N` indexes `pair_ids`. What is derived is computed
    once, when first asked for.
    """

    score_N: Floats
    pair_N: NDArray[np.int32]
    side_N: Sides
    preferred_side_N: Sides
    pair_ids: NDArray[Any]

    @classmethod
    def build(
        cls,
        scores: Sequence[float] | Floats,
        pair_id: Sequence[str] | Sequence[int] | NDArray[Any],
        side: Sequence[int] | NDArray[Any],
        preferred_side: Sequence[int] | NDArray[Any],
        lone_side: Literal["raise", "penalise"] = "raise",
    ) -> Self:
        """Check and index one batch; a score is a number, or NaN for none.

        Raises ConfigError for columns of other lengths, sides that are not 0 or 1, a pair whose rows disagree on
        preferred_side, and, unless lone sides are to be penalised, a pair with one side only; it names the pairs.
        """
        names = ("scores", "pair_id", "side", "preferred_side")
        lengths = dict(zip(names, map(len, (scores, pair_id, side, preferred_side)), strict=True))
        if len(set(lengths.values())) > 1:
            raise ConfigError(f"columns of different lengths: {lengths}")
        pair_N, pair_ids = _index(pair_id)
        side_N = _sides("side", side, pair_id)
        batch = cls(_scores(scores), pair_N, side_N, _sides("preferred_side", preferred_side, pair_id), pair_ids)
        batch._check(lone_side)
        return batch

    def __len__(self) -> int:
        """Return N."""
        return len(self.score_N)

    @cached_property
    def group_N(self) -> Ints:
        """Group of each completion: one side of one pair, which is one prompt."""
        group_N = self.pair_N.astype(np.int64)
        group_N *= 2
        group_N += self.side_N
        return group_N

    @cached_property
    def sign_N(self) -> Sides:
        """+1 on the preferred side, -1 on the other."""
        return 1 - 2 * (self.side_N ^ self.preferred_side_N)

    @cached_property
    def rows_P2(self) -> Ints:
        """How many completions each side of each pair has."""
        return np.bincount(self.group_N, minlength=2 * len(self.pair_ids)).reshape(-1, 2)

    @cached_property
    def preferred_P2(self) -> Sides:
        """The preferred side of each pair, as each of its sides has it."""
        preferred_P2 = np.zeros((len(self.pair_ids), 2), np.int8)
        preferred_P2.reshape(-1)[self.group_N] = self.preferred_side_N
        return preferred_P2

    @cached_property
    def mean_P2(self) -> Floats:
        """Mean score of each pair's sides, shape (P, 2); NaN where a side has no score."""
        unscored = np.flatnonzero(np.isnan(self.score_N))
        filled_N = self.score_N.copy()
        filled_N[unscored] = 0.0
        size = self.rows_P2.size
        total = np.bincount(self.group_N, filled_N, size).reshape(-1, 2)
        count = self.rows_P2 - np.bincount(self.group_N[unscored], minlength=size).reshape(-1, 2)
        return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)

    def pair_margin(self) -> Floats:
        """Mean score of the preferred side minus the other's, shape (P,); NaN where one of them has no score.

        As floats subtract: a tie may miss 0 by their dust.
        """
        return (self.mean_P2[:, 0] - self.mean_P2[:, 1]) * (1 - 2 * self.preferred_P2.max(axis=1))

    @cached_property
    def margin_N(self) -> Floats:
        """Margin over the mean opponent: > 0 agrees with the label, ties are exactly 0; NaN without one or a score."""
        return without_dust(self.margin_over("mean"))

    def margin_over(self, opponent: Opponent) -> Floats:
        """Margin over the other side's mean, or over its completion of the same rank (`aligned`).

        As floats subtract: a tie may miss 0 by their dust.
        """
        opponent_N = self.aligned_opponent() if opponent == "aligned" else self.mean_opponent()
        margin_N = np.subtract(self.score_N, opponent_N, out=opponent_N)
        margin_N *= self.sign_N
        return margin_N

    def mean_opponent(self) -> Floats:
        """Mean score of the other side, shape (N,)."""
        return self.mean_P2[:, ::-1].ravel()[self.group_N]

    def aligned_opponent(self) -> Floats:
        """Score of the other side's completion of the same rank, j-th against j-th, shape (N,); NaN for none."""
        order = np.argsort(self.group_N, kind="stable")
        count = self.rows_P2.ravel()
        start = np.cumsum(count) - count
        rank_N = np.empty_like(order)
        rank_N[order] = np.arange(len(order)) - start[self.group_N[order]]
        other_N = self.group_N ^ 1
        met = rank_N < count[other_N]
        opponent_N = np.full(len(order), np.nan)
        opponent_N[met] = self.score_N[order[start[other_N[met]] + rank_N[met]]]
        return opponent_N

    def _check(self, lone_side: str) -> None:
        problems: list[str] = []
        rows, preferred = self.rows_P2, self.preferred_P2
        both = (rows[:, 0] > 0) & (rows[:, 1] > 0)
        differ = both & (preferred[:, 0] != preferred[:, 1])
        within = np.flatnonzero(preferred.reshape(-1)[self.group_N] != self.preferred_side_N)
        differ[self.pair_N[within]] = True
        if differ.any():
            problems.append(f"rows disagree on preferred_side in {self._names(np.flatnonzero(differ))}")
        lone = np.flatnonzero(~both)
        if len(lone) and lone_side == "raise":
            problems.append(
                f"one side only in {self._names(lone)}: both sides of a pair must be in one batch, "
                "or take lone_side=penalise"
            )
        if problems:
            raise ConfigError("; ".join(problems))

    def _names(self, pairs: NDArray[np.int64]) -> str:
        names = ", ".join(repr(name) for name in self.pair_ids[pairs[:5]].tolist())
        return f"pair_id {names}" + (f" and {len(pairs) - 5} more" if len(pairs) > 5 else "")


def _index(pair_id: Sequence[str] | Sequence[int] | NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """Return (index of each row's pair, pair ids in order of first appearance). Hashing beats sorting here."""
    import pyarrow as pa
    import pyarrow.types as pat

    try:
        encoded: Any = pa.array(pair_id, None if len(pair_id) else pa.int64()).dictionary_encode()
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
        raise ConfigError(f"pair_id: neither all text nor all integers ({error})") from None
    kind = encoded.type.value_type
    if encoded.null_count or not any(is_kind(kind) for is_kind in (pat.is_integer, pat.is_string, pat.is_large_string)):
        raise ConfigError(f"pair_id: text or integers are valid, got {'null' if encoded.null_count else kind}")
    return encoded.indices.to_numpy(), encoded.dictionary.to_numpy(zero_copy_only=False)


def _scores(scores: Sequence[float] | Floats) -> Floats:
    try:
        score_N = np.asarray(scores, np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"scores: numbers or NaN are valid ({error})") from None
    if score_N.ndim != 1 or np.isinf(score_N).any():
        raise ConfigError("scores: one finite number or NaN each is valid")
    return score_N


def _sides(name: str, values: Sequence[int] | NDArray[Any], pair_id: Sequence[Any] | NDArray[Any]) -> Sides:
    """Return the column as int8; a list of small integers goes through bytes, which is several times faster."""
    try:
        sides = np.frombuffer(bytes(values), np.uint8) if isinstance(values, list) else np.asarray(values)
    except (TypeError, ValueError):
        sides = np.asarray(values)
    bad = np.flatnonzero((sides != 0) & (sides != 1))
    if len(bad):
        raise ConfigError(f"{name}: 0 or 1 is valid, got {values[bad[0]]!r} for pair_id {pair_id[bad[0]]!r}")
    return sides.astype(np.int8)
