"""The toy task: a preference that a tiny model can learn, made from a seed.

A response is four adjectives about a thing; people prefer the one with the larger (good - bad) count, and pairs differ
by at least 3. Labels of the training split can be flipped with a given probability; other splits are always clean.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from btrm.data.items import Item, Query
from btrm.records import PreferencePair

GOOD = ("clear", "exact", "honest", "useful", "lively", "neat", "wise", "warm")
BAD = ("vague", "wrong", "false", "clumsy", "dull", "messy", "silly", "cold")
NEUTRAL = ("long", "short", "plain", "round", "blue", "late", "quiet", "local")
THINGS = ("river", "train", "garden", "recipe", "letter", "market", "winter", "engine", "island", "school")
MIN_MARGIN = 3


def toy_value(response: str) -> int:
    """Return (good - bad) of a response: what the toy's people go by."""
    words = response.split()
    return sum(w in GOOD for w in words) - sum(w in BAD for w in words)


def toy_pair(seed: int, split: str, index: int, label_noise: float = 0.0) -> PreferencePair:
    """Return pair `index` of a split; it does not depend on how many others are made."""
    rng = random.Random(f"btrm-toy/{seed}/{split}/{index}")
    context = f"Summary of the {rng.choice(THINGS)}"
    while True:
        first, second = (" ".join(rng.choice(rng.choice((GOOD, BAD, NEUTRAL))) for _ in range(4)) for _ in range(2))
        margin = toy_value(first) - toy_value(second)
        if abs(margin) >= MIN_MARGIN:
            break
    preferred = 0 if margin > 0 else 1
    flipped = split == "train" and rng.random() < label_noise
    return PreferencePair.make(
        context,
        (first, second),
        1 - preferred if flipped else preferred,
        source="toy",
        split=split,
        meta={"flipped": flipped},
    )


def toy_pairs(split: str, n_pairs: int, *, seed: int = 0, label_noise: float = 0.0) -> Iterator[PreferencePair]:
    """Yield the first `n_pairs` pairs of a split."""
    return (toy_pair(seed, split, index, label_noise) for index in range(n_pairs))


def toy_items(query: Query) -> Iterator[Item]:
    """Yield a split's pairs without end, or the query's limit: the caller says how many there are."""
    indices = itertools.count() if query.limit is None else range(query.limit)
    return (toy_pair(query.seed, query.split, index, query.label_noise) for index in indices)
