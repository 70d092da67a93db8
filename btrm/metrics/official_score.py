"""A score as the authors of a benchmark define it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OfficialScore:
    """One figure as the benchmark names it, in 0..1 (more is better), over `n` of its prompts."""

    name: str
    value: float
    n: int


def with_mean(name: str, parts: Sequence[OfficialScore], expected: Iterable[str]) -> list[OfficialScore]:
    """Put the plain mean of all parts in front; its name says which of the `expected` are missing. [] without any."""
    if not parts:
        return []
    found = {part.name for part in parts}
    absent = [part for part in expected if part not in found]
    title = f"{name} without {', '.join(absent)}" if absent else name
    mean = sum(part.value for part in parts) / len(parts)
    named = [OfficialScore(f"{name} {part.name}", part.value, part.n) for part in parts]
    return [OfficialScore(title, mean, sum(part.n for part in parts)), *named]
