"""Rows of eval.jsonl and of judgements made up for the report's tests."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from btrm.metrics.bootstrap import Interval
from btrm.records import Judgement, PreferencePair, write_judgements, write_pairs
from btrm.report.rows import SummaryRow, key_of


def eval_row(checkpoint: str, accuracy: float, dataset: str = "test", seed: int = 0, **more: Any) -> dict[str, Any]:
    whose = {"checkpoint": checkpoint, "dataset": dataset, "seed": seed, "prompt": "toy_score100", "method": "sampled"}
    interval = {"accuracy": accuracy, "accuracy_low": accuracy - 0.03, "accuracy_high": accuracy + 0.03}
    return {**whose, "n_pairs": 200, **interval, **more}


def write_run(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write what `evaluate` leaves of a complete run."""
    (folder / "evaluate").mkdir(parents=True)
    (folder / "evaluate/eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "evaluate/manifest.json").write_text("{}")
    return folder


def pairs_of(dataset: str, n_pairs: int) -> list[PreferencePair]:
    return [
        PreferencePair.make(f"{dataset} {i // 2}", (f"a {i}", f"b {i}"), i % 2, source="made up", split=dataset)
        for i in range(n_pairs)
    ]


def judged(checkpoint: str, skill: float, dataset: str, seeds: Sequence[int], n_pairs: int = 60) -> Iterator[Judgement]:
    """Yield the answers of a judge that is right with the chance `skill`, by its own dice."""
    for seed in seeds:
        rng = np.random.default_rng([seed, *checkpoint.encode()])
        for pair in pairs_of(dataset, n_pairs):
            right = rng.random() < skill
            for side in (0, 1):
                score = 80.0 if (side == pair.preferred) == right else 20.0
                yield answer(pair, side, checkpoint, seed, score, dataset)


def answer(pair: PreferencePair, side: int, checkpoint: str, seed: int, score: float, dataset: str) -> Judgement:
    return Judgement(
        *(pair.label_id, pair.pair_id, side, 0, pair.preferred, pair.split, checkpoint, "hash", None, "toy_score100"),
        *("sampled", seed, f"<s>{score:.0f}</s>", score, "scored", "stop", 10, 5),
        dataset=dataset,
    )


def write_judged(folder: Path, judgements: Sequence[Judgement], datasets: Sequence[str]) -> tuple[Path, Path]:
    """Write judgements.parquet and pairs.parquet; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    write_judgements(folder / "judgements.parquet", judgements)
    write_pairs(folder / "pairs.parquet", [pair for dataset in datasets for pair in pairs_of(dataset, 60)])
    return folder / "judgements.parquet", folder / "pairs.parquet"


def summary_row(checkpoint: str, accuracy: float, dataset: str) -> SummaryRow:
    """A row of one seed, 0.06 wide."""
    told = eval_row(checkpoint, accuracy, dataset)
    return SummaryRow(key_of(told), dataset, (told,), Interval(accuracy - 0.03, accuracy + 0.03))
