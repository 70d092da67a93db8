"""A reward of ms-swift's own kind: both sides of a pair must be there, K times each. Named on its command line."""

from __future__ import annotations

from collections import Counter
from typing import Any

from swift.rewards import ORM, orms


class WholePairs(ORM):
    def __call__(self, completions: list[str], pair_id: list[str], side: list[int], **_: Any) -> list[float]:
        times = Counter(zip(pair_id, side, strict=True))
        assert set(times.values()) == {2} and {(pair, 1 - at) for pair, at in times} == set(times)
        return [float(n % 2) for n in range(len(completions))]


orms["whole_pairs"] = WholePairs
