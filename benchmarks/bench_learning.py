"""Does it learn? The demo's whole path on three training seeds, and its control, on the held-out test split.

Targets: the last GRPO checkpoint reaches 0.93 and at least 0.25 above SFT on every seed, and their 95 % intervals lie
apart; the control (stock sampler, pairs parted) stays within 0.07 of SFT. Takes minutes a seed.
Run: python benchmarks/bench_learning.py [--seeds 0 1 2]
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

TARGET, GAIN, CONTROL_BAND = 0.93, 0.25, 0.07


@dataclass(frozen=True)
class Learnt:
    """Held-out accuracy before and after GRPO, in [0, 1]; where the one's interval ends and the other's starts."""

    sft: float
    last: float
    sft_high: float
    last_low: float
    seconds: float


def run_experiment(name: str, seed: int, root: Path) -> Learnt:
    seeds = [f"{step}.seed={seed}" for step in ("toy_model", "sft", "grpo")]
    command = [sys.executable, "-m", "btrm.submit", "pipeline", "--experiment", name, "--run", str(root)]
    started = time.monotonic()
    subprocess.run([*command, *(word for s in seeds for word in ("--set", s))], check=True)
    seconds = time.monotonic() - started
    with (root / "summary.csv").open() as file:
        rows = {row["checkpoint"]: row for row in csv.DictReader(file) if row["dataset"] == "test"}
    steps = [label for label in rows if label.startswith("checkpoint-")]
    sft, last = rows["sft"], rows[max(steps, key=lambda label: int(label.rpartition("-")[2]))]
    accuracies = (float(sft["accuracy"]), float(last["accuracy"]))
    return Learnt(*accuracies, float(sft["accuracy_high"]), float(last["accuracy_low"]), seconds)


def problems(what: str, learnt: Learnt, control: bool) -> list[str]:
    if control:
        far = abs(learnt.last - learnt.sft) > CONTROL_BAND
        return [f"{what}: {learnt.last:.3f} is not within {CONTROL_BAND} of SFT's {learnt.sft:.3f}"] if far else []
    missed = [f"{what}: {learnt.last:.3f} < {TARGET}"] if learnt.last < TARGET else []
    if learnt.last - learnt.sft < GAIN:
        missed.append(f"{what}: gains {learnt.last - learnt.sft:.3f} < {GAIN}")
    if learnt.last_low <= learnt.sft_high:
        missed.append(f"{what}: intervals meet, {learnt.last_low:.3f} (last) <= {learnt.sft_high:.3f} (sft)")
    return missed


def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--run", type=Path, help="keep the runs below this folder")
    given = arguments.parse_args()
    missed: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        root = given.run or Path(scratch)
        cells = [("toy.demo", seed) for seed in given.seeds] + [("toy.control", given.seeds[0])]
        for name, seed in cells:
            learnt = run_experiment(name, seed, root / f"{name}-{seed}")
            print(
                f"{name} seed {seed}: sft {learnt.sft:.3f} (to {learnt.sft_high:.3f}), "
                f"last {learnt.last:.3f} (from {learnt.last_low:.3f}), {learnt.seconds:.0f} s",
                flush=True,
            )
            missed += problems(f"{name} seed {seed}", learnt, name == "toy.control")
    print("MISSED: " + "; ".join(missed) if missed else "targets met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
