"""A score as the authors of a benchmark define it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OfficialScore:
    """One figure as the benchmark names it, in 0..1 (more is better), over `n` of its prompts."""

    name: str
    value: float
    n: int
