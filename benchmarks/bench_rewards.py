"""Rewards of 100k completions against plain per-row Python, as one would first write it, in one run.

Targets: 5x with parsing, 20x without. Prints one line a figure; exits 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import math
import random
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from btrm.rewards.config import RewardConfig
from btrm.rewards.pair_batch import PairBatch
from btrm.rewards.reward import compute_rewards, reward_completions

KNOBS = {
    "delta_temp": 20.0,
    "delta_clip": 10.0,
    "delta_neg_clip": 2.0,
    "scale": 1.0,
    "offset": 0.693,
    "parse_fail": -1.0,
}
TARGETS = {"with parsing": 5.0, "without parsing": 20.0}
TAG = re.compile(r"<s>([^<]*)</s>")
NUMERAL = re.compile(r"\d{1,3}")
WORDS = ["the", "answer", "polite", "but", "leaves", "out", "what", "was", "asked", "adds", "a", "claim", "check"]


def plain_parse(completions: list[str]) -> list[float | None]:
    scores: list[float | None] = []
    for completion in completions:
        tags = TAG.findall(completion)
        if tags and NUMERAL.fullmatch(tags[-1].strip()) and float(tags[-1]) <= 100:
            scores.append(float(tags[-1]))
        else:
            scores.append(None)
    return scores


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


def plain_rewards(
    scores: list[float | None], pair_id: list[Any], side: list[int], preferred_side: list[int], knobs: dict[str, float]
) -> list[float]:
    groups: dict[tuple[Any, int], list[float]] = defaultdict(list)
    labels: dict[Any, int] = {}
    for score, pair, own, preferred in zip(scores, pair_id, side, preferred_side, strict=True):
        if own not in (0, 1) or preferred not in (0, 1):
            raise ValueError(f"side {own}, preferred_side {preferred} in pair {pair}")
        if labels.setdefault(pair, preferred) != preferred:
            raise ValueError(f"pair {pair} disagrees on preferred_side")
        group = groups[pair, own]
        if score is not None:
            group.append(score)
    for pair in labels:
        if (pair, 0) not in groups or (pair, 1) not in groups:
            raise ValueError(f"pair {pair} has one side only")
    means = {key: sum(values) / len(values) for key, values in groups.items() if values}
    rewards: list[float] = []
    for score, pair, own, preferred in zip(scores, pair_id, side, preferred_side, strict=True):
        opponent = means.get((pair, 1 - own))
        if score is None or opponent is None:
            rewards.append(knobs["parse_fail"])
            continue
        margin = score - opponent if own == preferred else opponent - score
        x = margin / knobs["delta_temp"]
        if knobs["delta_clip"]:
            x = min(x, knobs["delta_clip"])
        if knobs["delta_neg_clip"]:
            x = max(x, -knobs["delta_neg_clip"])
        rewards.append(knobs["scale"] * log_sigmoid(x) + knobs["offset"])
    return rewards


def batch(n: int, length: int, k: int = 8) -> dict[str, Any]:
    """Return n completions, K of each side of a pair, in the order of a trainer; 8 in 100 hold no score."""
    rng = random.Random(7)
    rows: list[tuple[str, str, int, int]] = []
    for _ in range(n // (2 * k)):
        name = f"{rng.getrandbits(64):016x}-0"
        preferred = rng.randrange(2)
        for side in (0, 1):
            for _ in range(k):
                rows.append((completion(rng, length), name, side, preferred))
    names = ("completions", "pair_id", "side", "preferred_side")
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def completion(rng: random.Random, length: int) -> str:
    words: list[str] = []
    while sum(map(len, words)) + len(words) < length - 10:
        words.append(rng.choice(WORDS))
    return " ".join(words) + (f" <s>{rng.randint(0, 100)}</s>" if rng.random() > 0.08 else " no score.")


def both_seconds(plain: Callable[[], Any], fast: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Return the best CPU times of both, measured in turns: what the machine does besides falls out."""
    best = [math.inf, math.inf]
    for _ in range(repeats):
        for which, call in enumerate((plain, fast, fast)):
            start = time.process_time()
            call()
            best[which > 0] = min(best[which > 0], time.process_time() - start)
    return best[0], best[1]


def compare(kind: str, length: int, n: int, repeats: int) -> bool:
    """Time both on one batch; indexing and checking the pairs is part of the time of both.

    With parsing: lists, as a trainer hands them over. Without: lists for plain Python, NumPy columns for btrm.
    """
    rows = batch(n, length)
    keys = [rows[name] for name in ("pair_id", "side", "preferred_side")]
    number = {name: index for index, name in enumerate(dict.fromkeys(rows["pair_id"]))}
    pairs = [number[name] for name in rows["pair_id"]]
    columns = [np.array(pairs), *map(np.array, keys[1:])]
    config = RewardConfig.parity({**KNOBS, "lone_side": "raise"})
    scores = plain_parse(rows["completions"])
    score_N = np.array([np.nan if s is None else s for s in scores])
    expected = plain_rewards(scores, *keys, KNOBS)
    for rewards in (
        reward_completions(rows["completions"], *keys, config),
        compute_rewards(PairBatch.build(score_N, *columns), config),
    ):
        np.testing.assert_allclose(rewards.reward_N, expected, rtol=0, atol=1e-12)
    timed = {
        "with parsing": both_seconds(
            lambda: plain_rewards(plain_parse(rows["completions"]), *keys, KNOBS),
            lambda: reward_completions(rows["completions"], *keys, config),
            repeats,
        ),
        "without parsing": both_seconds(
            lambda: plain_rewards(scores, pairs, *keys[1:], KNOBS),
            lambda: compute_rewards(PairBatch.build(score_N, *columns), config),
            repeats,
        ),
    }
    good = True
    for what, (plain, fast) in timed.items():
        ratio, target = plain / fast, TARGETS[what]
        good &= ratio >= target
        print(
            f"rewards, {n} {kind} completions, {what}: {ratio:.1f}x (plain {plain * 1e3:.0f} ms, "
            f"btrm {fast * 1e3:.1f} ms; target {target:.0f}x) {'ok' if ratio >= target else 'MISSED'}"
        )
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    results = [compare(kind, length, args.n, args.repeats) for kind, length in (("short", 20), ("reasoned", 300))]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
