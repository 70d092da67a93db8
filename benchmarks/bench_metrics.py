"""Metrics over a grid's judgements: 8,552 pairs of 2,200 contexts, 8 samples a side, 0-100.

python benchmarks/bench_metrics.py

Linear metrics with 10,000 resamples of the contexts stand against the plain loop that one would write first (timed over
few resamples, and multiplied); then one cell as the stage evaluates it, and reading it from Parquet. Times are of the
process, medians of three, so that a busy machine counts for less; peak memory is of a process that does only that.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from btrm.metrics.details import details
from btrm.metrics.intervals import intervals
from btrm.metrics.judged import JudgedCell, read_cells
from btrm.metrics.measured import Measured, Measuring
from btrm.metrics.scalars import scalars
from btrm.records import Judgement, PreferencePair, write_judgements, write_pairs

PAIRS, CONTEXTS, SAMPLES, RESAMPLES = 8552, 2200, 8, 10_000
HOW = Measuring(20.0, "tie", 10, (None, None))


def simulated(directory: Path) -> tuple[Path, Path]:
    """Write judgements.parquet and pairs.parquet of a judge that is right about 70 % of the pairs."""
    rng = np.random.default_rng(0)
    score = rng.normal(50, 12, (PAIRS, 2))[:, :, None] + rng.normal(0, 8, (PAIRS, 2, SAMPLES))
    score[:, 0] += 9
    score = np.clip(np.rint(score), 0, 100)
    texts = [f"context {number} " + "words of a conversation " * 40 for number in range(CONTEXTS)]
    pairs = [
        PreferencePair.make(
            texts[p % CONTEXTS], (f"one {p} " * 30, f"other {p} " * 25), 0, source="made", split="test", label=str(p)
        )
        for p in range(PAIRS)
    ]
    judgements, known = directory / "judgements.parquet", directory / "pairs.parquet"
    write_pairs(known, pairs)
    write_judgements(
        judgements,
        (
            Judgement(
                label_id=pair.label_id,
                pair_id=pair.pair_id,
                side=side,
                sample=k,
                completion=f"<s>{score[p, side, k]:.0f}</s> " + "because of this and that " * 8,
                score=float(score[p, side, k]),
                prompt_tokens=300,
                completion_tokens=60,
                preferred_side=0,
                split="test",
                judge="sft",
                model_hash="m",
                adapter_hash=None,
                prompt="toy_score100",
                method="sampled",
                seed=0,
                outcome="scored",
                finish_reason="stop",
            )
            for p, pair in enumerate(pairs)
            for side in (0, 1)
            for k in range(SAMPLES)
        ),
    )
    return judgements, known


def seconds(work: Callable[[], object]) -> float:
    """Return the median process time of three runs."""
    times: list[float] = []
    for _ in range(3):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return statistics.median(times)


def linear(cell: JudgedCell) -> None:
    """All ratios of sums of a cell, with their intervals."""
    measured = Measured(cell, HOW)
    intervals([measured], RESAMPLES, 0)


def whole(cell: JudgedCell) -> None:
    """A cell as the stage evaluates it: every scalar and every curve, with 2,000 resamples."""
    measured = Measured(cell, HOW)
    (found,) = intervals([measured], 2000, 0)
    scalars(measured, found)
    details(measured, found)


def plain(cell: JudgedCell, resamples: int) -> None:
    """The same intervals of accuracy, log-loss and the Brier score, a loop over resamples and contexts."""
    outcomes = Measured(cell, HOW).outcomes
    brier_P = (1 - 1 / (1 + np.exp(-outcomes.counted_P / 20))) ** 2
    of_context: dict[int, list[int]] = {}
    for pair, context in enumerate(cell.cluster_P.tolist()):
        of_context.setdefault(context, []).append(pair)
    groups = [np.array(pairs) for pairs in of_context.values()]
    rng = np.random.default_rng(0)
    found: list[tuple[float, float, float]] = []
    for _ in range(resamples):
        drawn = np.concatenate([groups[g] for g in rng.integers(0, len(groups), len(groups))])
        found.append((outcomes.credit_P[drawn].mean(), outcomes.loss_P[drawn].mean(), brier_P[drawn].mean()))
    np.quantile(np.array(found), [0.025, 0.975], axis=0)


def peak_mb(what: str, directory: Path) -> float:
    """Return the peak resident memory of a process that reads the cell and does this."""
    command = [sys.executable, __file__, what, str(directory)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1024


def main() -> int:
    """Print the figures; return 1 where a target is missed."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        judgements, pairs = simulated(directory)
        reading = seconds(lambda: read_cells(judgements, pairs))
        (by_context,) = read_cells(judgements, pairs)
        (by_pair,) = read_cells(judgements)
        print(f"{PAIRS:,} pairs x {SAMPLES} samples a side, {2 * PAIRS * SAMPLES:,} judgements")
        print(f"reading: {reading:.2f} s")
        fast, slow = seconds(lambda: linear(by_context)), seconds(lambda: plain(by_context, 200)) * RESAMPLES / 200
        print(
            f"linear metrics, {RESAMPLES:,} resamples of {CONTEXTS:,} contexts: {fast:.2f} s; a plain loop {slow:.1f} s"
        )
        print(f"  {slow / fast:.0f} times the plain loop's speed; peak {peak_mb('linear', directory):.0f} MB")
        most_s, most_mb = seconds(lambda: linear(by_pair)), peak_mb("linear_pairs", directory)
        print(f"linear metrics, {RESAMPLES:,} resamples of {PAIRS:,} pairs: {most_s:.2f} s (target: 2)")
        print(f"  peak {most_mb:.0f} MB (target: 1,000)")
        print(f"a cell evaluated as a whole, 2,000 resamples: {seconds(lambda: whole(by_context)):.2f} s")
        print(f"  peak {peak_mb('whole', directory):.0f} MB")
        return int(most_s > 2 or most_mb > 1000)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        known = None if sys.argv[1] == "linear_pairs" else Path(sys.argv[2]) / "pairs.parquet"
        (only,) = read_cells(Path(sys.argv[2]) / "judgements.parquet", known)
        (whole if sys.argv[1] == "whole" else linear)(only)
        print(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0])
    else:
        sys.exit(main())
