"""What asking has cost so far: calls, tokens, dollars and time, from the journals alone.

Journals are read line by line and nothing of a line is kept: a million calls take the memory of one. Latencies are
counted in bins of 2 % width, so a percentile is at most 1 % off.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import orjson

from btrm.config import ConfigError
from btrm.teacher.journal import Entry, journals

_WIDTH = math.log(1.02)
_SHORTEST_S = 1e-4  # a journal's latencies are rounded to this


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
    latencies: Counter[int] = field(default_factory=Counter[int])

    def add(self, entry: Entry) -> None:
        """Count a call."""
        usage = entry.usage
        self._count(entry.usd, entry.attempts, entry.finish_reason, entry.latency_s)
        self._tokens(usage.prompt, usage.cached, usage.output)

    def add_line(self, line: bytes) -> None:
        """Count a line of a journal. Raises ValueError, KeyError or TypeError where it is none."""
        values = cast("dict[str, Any]", orjson.loads(line))
        usage = cast("dict[str, int]", values["usage"])
        cached = usage["cached"]
        prompt, output = usage["input"] + cached + usage["cache_written"], usage["output"]
        self._count(values["usd"], values["attempts"], values["finish_reason"], values["latency_s"])
        self._tokens(prompt, cached, output)

    def _count(self, usd: float | None, attempts: int, end: str, latency_s: float) -> None:
        place = round(math.log(max(latency_s, _SHORTEST_S) / _SHORTEST_S) / _WIDTH)
        self.calls += 1
        self.retries += attempts - 1
        self.unpriced += usd is None
        self.usd += usd or 0.0
        self.ends[end] += 1
        self.latencies[place] += 1

    def _tokens(self, prompt: int, cached: int, output: int) -> None:
        self.prompt_tokens += prompt
        self.cached_tokens += cached
        self.completion_tokens += output

    def merge(self, other: Spending) -> None:
        """Add another's sums."""
        self.calls += other.calls
        self.usd += other.usd
        self.unpriced += other.unpriced
        self.retries += other.retries
        self._tokens(other.prompt_tokens, other.cached_tokens, other.completion_tokens)
        self.ends.update(other.ends)
        self.latencies.update(other.latencies)

    @property
    def cost_usd(self) -> float | None:
        """Dollars; None where the price of any call is not known."""
        return None if self.unpriced else round(self.usd, 6)

    @property
    def cached_share(self) -> float:
        """Share of the prompts' tokens that came from the API's cache."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0

    def latency_s(self, share: float) -> float | None:
        """Return the latency that this share of the calls did not exceed, within 1 %; None without calls."""
        wanted = share * self.calls
        seen = 0
        for place, count in sorted(self.latencies.items()):
            seen += count
            if seen >= wanted:
                return round(_SHORTEST_S * math.exp(_WIDTH * place), 4)
        return None

    def to_json(self) -> dict[str, Any]:
        """Return the sums for a manifest; latencies as the median and the 95th percentile."""
        return {
            "calls": self.calls,
            "cost_usd": self.cost_usd,
            "retries": self.retries,
            "prompt_tokens": self.prompt_tokens,
            "cached_share": round(self.cached_share, 4),
            "completion_tokens": self.completion_tokens,
            "finish_reasons": dict(self.ends.most_common()),
            "latency_p50_s": self.latency_s(0.5),
            "latency_p95_s": self.latency_s(0.95),
        }


def spending(directory: Path) -> Spending:
    """Return what the journals in a directory tell; answers that were asked for twice cost twice.

    A torn last line is passed over. Raises ConfigError with file:line for any other line that cannot be read.
    """
    total = Spending()
    for path in journals(directory):
        total.merge(_of_journal(path))
    return total


def spent_by_journal(directory: Path) -> dict[str, float]:
    """Return the dollars that each journal tells, by its file's name."""
    return {path.name: _of_journal(path).usd for path in journals(directory)}


def _of_journal(path: Path) -> Spending:
    found = Spending()
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                found.add_line(line)
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(f"{path}:{number}: not a line of this journal ({error})") from None
    return found
