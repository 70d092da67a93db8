"""What a preference set holds, counted in one pass over its pairs; a few dozen bytes a label stay in memory."""

from __future__ import annotations

import math
import random
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btrm.data.items import Dropped
from btrm.records import PreferencePair

Lengths = Callable[[Sequence[str]], list[int]]
_PLACES = 3  # where drops are named
_EXAMPLES = 3
_MOST_NAMES = 1000  # annotators and subsets that are counted by name
_Z95 = 1.959963984540054
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
NAMED_BY = {"annotator": ("annotator", "worker"), "subset": ("subset",)}


@dataclass(slots=True)
class Limits:
    """From which length a response (characters), or context and response together (tokens), is over-long."""

    characters: int = 10_000
    tokens: int = 4096


@dataclass(slots=True)
class Tally:
    """Takes pairs and drops one after another. `count_tokens` is None without a tokenizer.

    pair, context: 64-bit digests of each label's texts, the responses in an order that is theirs; said: 0 or 1 in that
    order, 2 a tie. characters: context, preferred-or-first response, other response of each label.
    """

    limits: Limits
    count_tokens: Lengths | None = None
    labels: Counter[str] = field(default_factory=Counter[str])
    drops: Counter[str] = field(default_factory=Counter[str])
    places: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    names: dict[str, Counter[str]] = field(default_factory=lambda: {kind: Counter[str]() for kind in NAMED_BY})
    examples: list[PreferencePair] = field(default_factory=list[PreferencePair])
    flaws: Counter[str] = field(default_factory=Counter[str])
    _pair: array[int] = field(default_factory=lambda: array("q"))
    _context: array[int] = field(default_factory=lambda: array("q"))
    _said: array[int] = field(default_factory=lambda: array("b"))
    _characters: array[int] = field(default_factory=lambda: array("I"))
    _tokens: array[int] = field(default_factory=lambda: array("I"))
    _waiting: list[str] = field(default_factory=list[str])
    _random: random.Random = field(default_factory=lambda: random.Random(0))

    def drop(self, item: Dropped) -> None:
        """Count a row that became no pair, and note where the first ones of its reason stand."""
        self.drops[item.reason] += 1
        if len(places := self.places.setdefault(item.reason, [])) < _PLACES:
            places.append(f"{item.where}: {item.detail}")

    def add(self, pair: PreferencePair) -> None:
        """Count one labelled pair."""
        self.labels["tie" if pair.preferred is None else ("first", "second")[pair.preferred]] += 1
        first, second = pair.responses
        swapped = second < first
        self._pair.append(hash((pair.context, second, first) if swapped else (pair.context, first, second)))
        self._context.append(hash(pair.context))
        self._said.append(2 if pair.preferred is None else pair.preferred ^ swapped)
        good, bad = (second, first) if pair.preferred == 1 else (first, second)
        self._characters.extend((len(pair.context), len(good), len(bad)))
        self._note_flaws(first, second)
        self._note_names(pair)
        self._keep(pair)
        if self.count_tokens is not None:
            self._wait((pair.context, first, second))

    def _note_flaws(self, first: str, second: str) -> None:
        self.flaws["empty"] += not first.strip() or not second.strip()
        self.flaws["identical"] += first == second
        self.flaws["over_long"] += max(len(first), len(second)) > self.limits.characters

    def _note_names(self, pair: PreferencePair) -> None:
        for kind, keys in NAMED_BY.items():
            name = next((str(pair.meta[key]) for key in keys if pair.meta.get(key)), "")
            counts = self.names[kind]
            if name and (name in counts or len(counts) < _MOST_NAMES):
                counts[name] += 1

    def _keep(self, pair: PreferencePair) -> None:
        """Keep three examples, each pair as likely as any other, the same ones on every call."""
        n = len(self._said)
        if n <= _EXAMPLES:
            self.examples.append(pair)
        elif (place := self._random.randrange(n)) < _EXAMPLES:
            self.examples[place] = pair

    def _wait(self, texts: tuple[str, str, str]) -> None:
        self._waiting += texts
        if len(self._waiting) >= 3 * 256:
            self._flush()

    def _flush(self) -> None:
        if self.count_tokens is not None and self._waiting:
            self._tokens.extend(self.count_tokens(self._waiting))
            self._waiting.clear()

    def facts(self) -> dict[str, Any]:
        """Return all counts as plain values, for --json."""
        self._flush()
        length_P3 = np.array(self._characters, dtype=np.uint32).reshape(-1, 3)
        return {
            "labelled_pairs": len(self._said),
            "labels": {name: self.labels[name] for name in ("first", "second", "tie")},
            **{f"{kind}s": dict(counts.most_common()) for kind, counts in self.names.items()},
            "duplicates": self._duplicates(),
            "responses": {name: self.flaws[name] for name in ("empty", "identical", "over_long")},
            "longer_wins": longer_wins(length_P3, np.array(self._said) != 2),
            "characters": {"context": summary(length_P3[:, 0]), "response": summary(length_P3[:, 1:])},
            "tokens": self._token_facts(),
            "dropped": {name: {"rows": n, "first": self.places[name]} for name, n in self.drops.most_common()},
        }

    def _token_facts(self) -> dict[str, Any] | None:
        if self.count_tokens is None:
            return None
        token_P3 = np.array(self._tokens, dtype=np.uint32).reshape(-1, 3)
        whole_P2 = token_P3[:, :1] + token_P3[:, 1:]
        found = {
            "context": summary(token_P3[:, 0]),
            "response": summary(token_P3[:, 1:]),
            "together": summary(whole_P2),
        }
        return {**found, "over_long": int(np.sum(whole_P2.max(1, initial=0) > self.limits.tokens))}

    def _duplicates(self) -> dict[str, int]:
        """Return how many pairs and contexts there are, and what is said of them more than once."""
        pairs, of_P, labels_P = np.unique(np.array(self._pair), return_inverse=True, return_counts=True)
        seen = np.zeros((len(pairs), 3), dtype=bool)
        seen[of_P, np.array(self._said)] = True
        first_of_pair = np.unique(of_P, return_index=True)[1]
        per_context = np.unique(np.array(self._context)[first_of_pair], return_counts=True)[1]
        return {
            "distinct_pairs": len(pairs),
            "contexts": len(per_context),
            "pairs_with_several_labels": int(np.sum(labels_P > 1)),
            "contradicted_pairs": int(np.sum(seen[:, 0] & seen[:, 1])),
            "differing_pairs": int(np.sum(seen.sum(1) > 1)),
            "contexts_with_several_pairs": int(np.sum(per_context > 1)),
        }


def summary(length_N: NDArray[np.uint32]) -> dict[str, float] | None:
    """Return least, mean, quantiles and greatest of some lengths; None without any."""
    if not length_N.size:
        return None
    found = {name: float(np.quantile(length_N, at)) for name, at in QUANTILES.items()}
    return {"min": int(length_N.min()), "mean": round(float(length_N.mean()), 1), **found, "max": int(length_N.max())}


def longer_wins(length_P3: NDArray[np.uint32], decided_P: NDArray[np.bool_]) -> dict[str, Any]:
    """Return how often the preferred response is the longer one in characters, equal ones half.

    The 95 % interval is Wilson's (1927); labels of one pair count one by one.
    """
    good_P, bad_P = (length_P3[decided_P, column].astype(np.int64) for column in (1, 2))
    n = len(good_P)
    if not n:
        return {"share": None, "low": None, "high": None, "n": 0}
    share = float(np.mean(0.5 + 0.5 * np.sign(good_P - bad_P)))
    low, high = wilson(share, n)
    return {"share": round(share, 4), "low": round(low, 4), "high": round(high, 4), "n": n}


def wilson(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of n."""
    z2 = _Z95**2
    middle, half = share + z2 / (2 * n), _Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return (middle - half) / (1 + z2 / n), (middle + half) / (1 + z2 / n)
