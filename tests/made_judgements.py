"""A judgement by hand: what its row holds where a test does not care."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from btrm.records import Judgement, PreferencePair


def judgement(pair: PreferencePair, side: int, sample: int = 0, score: float | None = 50.0, **others: Any) -> Judgement:
    """One answer about one side; without a score it is one that could not be read."""
    row = Judgement(
        label_id=pair.label_id,
        pair_id=pair.pair_id,
        side=side,
        sample=sample,
        preferred_side=pair.preferred,
        split=pair.split,
        judge="sft",
        model_hash="m",
        adapter_hash=None,
        prompt="hh_score100_v1",
        method="sampled",
        seed=0,
        completion="" if score is None else f"<s>{score}</s>",
        score=score,
        outcome="unparsed" if score is None else "scored",
        finish_reason="stop",
        prompt_tokens=1,
        completion_tokens=1,
    )
    return replace(row, **others)
