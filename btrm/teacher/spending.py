"""What asking has cost so far: calls, tokens, dollars and time, from the journals alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from btrm.teacher.journal import Entry, journals, read_journal


@dataclass(slots=True)
class Spending:
    """Sums over calls. `usd` counts the calls whose price is known; `unpriced` are the others."""

    calls: int = 0
    usd: float = 0.0
    unpriced: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    ends: Counter[str] = field(default_factory=Counter[str])
    faults: Counter[str] = field(default_factory=Counter[str])
    latencies_s: list[float] = field(default_factory=list[float])

    def add(self, entry: Entry) -> None:
        """Count a call."""
        self.calls += 1
        self.retries += entry.attempts - 1
        self.unpriced += entry.usd is None
        self.usd += entry.usd or 0.0
        self.prompt_tokens += entry.usage.prompt
        self.cached_tokens += entry.usage.cached
        self.completion_tokens += entry.usage.output
        self.ends[entry.finish_reason] += 1
        self.faults.update(entry.faults)
        self.latencies_s.append(entry.latency_s)

    def to_json(self) -> dict[str, Any]:
        """Return the sums for a manifest; latencies as the median and the 95th percentile."""
        p50, p95 = np.percentile(self.latencies_s, [50, 95]).round(4).tolist() if self.latencies_s else (None, None)
        return {
            "calls": self.calls,
            "cost_usd": None if self.unpriced else round(self.usd, 6),
            "retries": self.retries,
            "prompt_tokens": self.prompt_tokens,
            "cached_share": round(self.cached_tokens / self.prompt_tokens, 4) if self.prompt_tokens else 0.0,
            "completion_tokens": self.completion_tokens,
            "finish_reasons": dict(self.ends.most_common()),
            "faults": dict(self.faults.most_common()),
            "latency_p50_s": p50,
            "latency_p95_s": p95,
        }


def spending(directory: Path) -> Spending:
    """Return what the journals in a directory tell; answers that were asked for twice cost twice."""
    total = Spending()
    for path in journals(directory):
        for entry in read_journal(path):
            total.add(entry)
    return total


def spent_by_journal(directory: Path) -> dict[str, float]:
    """Return the dollars that each journal tells, by its file's name."""
    return {path.name: sum(entry.usd or 0.0 for entry in read_journal(path)) for path in journals(directory)}
