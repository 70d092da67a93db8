"""10,000 evaluated cells below one folder -> summary.csv, against pandas read file by file. Target: under 10 s."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from btrm.report.aggregate import RunCells, aggregate_rows, read_runs
from btrm.report.columns import as_records
from btrm.report.tables import write_records

RUNS, CHECKPOINTS, SEEDS = 250, 10, 4
TARGET_S = 10.0
METRICS = 90  # numbers a cell: about what the evaluate stage writes


def row(rng: random.Random, checkpoint: str, seed: int) -> dict[str, Any]:
    accuracy = rng.uniform(0.5, 0.8)
    whose = {"checkpoint": checkpoint, "dataset": "test", "seed": seed, "prompt": "hh_v1", "method": "sampled"}
    counts = {"n_pairs": 2000, "accuracy": accuracy, "accuracy_low": accuracy - 0.02, "accuracy_high": accuracy + 0.02}
    return whose | counts | {f"metric_{i}": rng.random() for i in range(METRICS)}


def make_tree(root: Path) -> None:
    rng = random.Random(0)
    for run in range(RUNS):
        folder = root / f"user{run % 5}" / f"study{run % 7}" / f"run{run}" / "evaluate"
        folder.mkdir(parents=True)
        cells = [row(rng, f"checkpoint-{50 * c}", s) for c in range(CHECKPOINTS) for s in range(SEEDS)]
        (folder / "eval.jsonl").write_text("".join(json.dumps(cell) + "\n" for cell in cells))
        (folder / "manifest.json").write_text("{}")
    for found in read_runs([root]).runs:
        add_summary(found)


def add_summary(run: RunCells) -> None:
    """Write what the run's own summarize would leave."""
    folder = run.folder.parent / "summarize"
    folder.mkdir()
    write_records(folder / "summary.csv", as_records(aggregate_rows([run])))
    digest = hashlib.sha256((run.folder / "eval.jsonl").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps({"inputs": {"@evaluate/eval.jsonl": digest}}))


BASELINE = """
import sys, pandas as pd
from pathlib import Path
frames = [pd.read_json(p, lines=True).assign(run=str(p)) for p in sorted(Path(sys.argv[1]).rglob("eval.jsonl"))]
table = pd.concat(frames)
grouped = table.groupby(["run", "checkpoint", "dataset", "prompt", "method"])
numbers = table.select_dtypes("number").columns
grouped[list(numbers)].agg(["mean", "std", "count"]).to_csv(sys.argv[2])
table.melt(id_vars=["run", "checkpoint", "dataset", "seed", "prompt", "method"]).to_csv(sys.argv[2] + ".long")
"""


def timed(words: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> int:
    with tempfile.TemporaryDirectory() as scratch:
        root, out = Path(scratch) / "tree", Path(scratch) / "out"
        make_tree(root)
        ours = min(timed(["-m", "btrm.cli", "summarize", str(root), "--out", str(out)]) for _ in range(2))
        rows = len((out / "summary.csv").read_text().splitlines()) - 1
        pandas = timed(["-c", BASELINE, str(root), str(Path(scratch) / "pandas.csv")])
    cells = RUNS * CHECKPOINTS * SEEDS
    print(f"{cells:,} cells of {RUNS} runs -> {rows:,} rows of summary.csv, summary_long.csv, summary.md: {ours:.2f} s")
    print(f"  target < {TARGET_S:.0f} s; pandas file by file {pandas:.2f} s: {pandas / ours:.1f} times as long")
    return 0 if ours < TARGET_S and rows == RUNS * CHECKPOINTS else 1


if __name__ == "__main__":
    sys.exit(main())
