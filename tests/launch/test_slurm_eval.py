"""`eval` on a real Slurm: an array with a straggler, whose share the others take over, then the table and the best."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from judged_run import add_checkpoint, complete_trainer, make_run

from btrm.launch.submission import submissions
from btrm.onebox.box import OneBox
from btrm.operate.status import run_status
from btrm.submit import main

HERE = Path(__file__).parent
SITE = """
executor = "slurm"
partition = "low"
python = "{python}"
warn_s = 5
backoff_s = 1
queue_interval_s = 0.3
patrol_s = 0
"""
ELEMENTS, BATCHES = 3, 18


@pytest.mark.slow
def test_an_eval_array_does_not_wait_for_its_straggler(
    slurm: Callable[..., OneBox], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm(nodes=2, gpus=0)
    flags = make_run(tmp_path)
    assert main(["pairs", *flags, "--site", "local"]) == 0
    for step in (5, 10):
        add_checkpoint(tmp_path, step)
    complete_trainer(tmp_path)
    faults = tmp_path / "faults"
    faults.mkdir()
    python = faults / "python"
    path = f"import sys\nsys.path.insert(0, {str(HERE.parent)!r})\n"
    text = (HERE / "judging_python.py").read_text().replace("import os\n", f"import os\n{path}", 1)
    python.write_text(f"#!{sys.executable}\n{text}")
    python.chmod(0o755)
    (faults / "slow").write_text(str(BATCHES - BATCHES // ELEMENTS + 1))  # their own, and one of the straggler's
    (faults / "tried.toml").write_text(SITE.format(python=python))
    words = ["--checkpoints", "base,checkpoint-*", "--shards", str(ELEMENTS), "--wait", "--part-pairs", "2"]
    assert main(["eval", *flags, *words, "--site", str(faults / "tried.toml")]) == 0
    out = capsys.readouterr().out
    assert "submitted" in out and "best: checkpoint-10: 1.000" in out
    submission = submissions(tmp_path / "run")[-1]
    assert [job.key for job in submission.sent() if job.kind != "control"] == [
        "judge.0",
        "judge.commit",
        "evaluate",
        "summarize",
    ]
    asked = [len((faults / f"asked.{task}").read_text().split()) for task in range(ELEMENTS)]
    assert sum(asked) == BATCHES == 3 * 6  # three checkpoints, six parts of both seeds each: nothing twice
    assert asked[0] < 6, f"the straggler asked {asked[0]} of the {BATCHES // ELEMENTS} batches of its share"
    for element in range(ELEMENTS):
        last = submission.read_state("judge", element).last
        assert last is not None and last.outcome == "done" and last.done == last.total == 24
    assert all(step.state == "complete" for step in run_status(tmp_path / "run").steps)
