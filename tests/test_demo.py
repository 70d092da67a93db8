"""What a newcomer runs, whole: it is killed in the middle of GRPO, goes on, and ends in a judge that has learnt."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from btrm.report.tables import read_summary
from btrm.runs import read_manifest, verify

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500), pytest.mark.usefixtures("need_swift")]


def demo(root: Path) -> list[str]:
    return [sys.executable, "-m", "btrm.submit", "pipeline", "--experiment", "toy.demo", "--run", str(root)]


def kill_in_the_middle_of_grpo(root: Path) -> None:
    """Start the demo and kill -9 its launcher as soon as a first GRPO checkpoint lies there."""
    with (root.parent / "killed.log").open("wb") as log:
        child = subprocess.Popen(demo(root), stdout=log, stderr=log)
        deadline = time.monotonic() + 900
        while not (root / "grpo/checkpoints/checkpoint-50/btrm.json").exists():
            assert child.poll() is None, (root.parent / "killed.log").read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.2)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()


def test_the_demo_is_killed_goes_on_and_has_learnt(tmp_path: Path) -> None:
    root = tmp_path / "demo"
    kill_in_the_middle_of_grpo(root)
    merged = (root / "merge/manifest.json").read_bytes()
    assert read_manifest(root / "grpo") is None
    done = subprocess.run(demo(root), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "merge      complete, skipped" in done.stderr and "grpo       resumes" in done.stderr
    assert (root / "merge/manifest.json").read_bytes() == merged
    assert verify(root) == []
    table = read_summary(root / "summary.csv")
    rows = {row["checkpoint"]: row for row in table if row["dataset"] == "test"}
    assert list(rows) == ["base", "sft", *(f"checkpoint-{step}" for step in (50, 100, 150, 200, 250))]
    assert {row["n_seeds"] for row in table} == {"3"} and len(table) == 2 * len(rows)
    assert "selected by the highest accuracy of 7 on validation" in done.stdout
    assert not any("optimistic" in row["selected"] for row in rows.values())
    sft, last = rows["sft"], rows["checkpoint-250"]
    assert float(last["accuracy"]) >= 0.85  # well learnt; the target itself is for bench_learning, on several seeds
    assert float(last["accuracy"]) - float(sft["accuracy"]) >= 0.25
    assert float(last["accuracy_low"]) > float(sft["accuracy_high"])
    assert "after   checkpoint-250" in done.stdout and (root / "learning_curve.png").stat().st_size > 10_000
    assert (root / "report.html").stat().st_size > 100_000
