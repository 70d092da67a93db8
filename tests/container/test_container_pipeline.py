"""The pipeline of make demo, at its smallest, in the real image under a real Slurm, preempted in the middle."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sent_jobs import wait_until

from btrm.launch.control import unfinished
from btrm.launch.snapshot import code_digest
from btrm.launch.submission import submissions
from btrm.onebox import faults
from btrm.onebox.box import OneBox
from btrm.runs import read_manifest, sha256_file
from btrm.stages import verify_run
from btrm.train.rank import read_steps
from btrm.train.swift_series import own_version

EXPERIMENT = f"{Path(__file__).parent.parent / 'launch' / 'tiny_toy.py'}:tiny"
STEPS, WAIT_S = 30, 540.0
SITE = """
executor = "slurm"
partition = "low"
warn_s = 5
backoff_s = 1
patrol_s = 20
queue_interval_s = 1

[container]
image = "{image}"
nv = false
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_pipeline_runs_in_the_image_through_a_preemption(
    cpu_image: Path, slurm: Callable[..., OneBox], tmp_path: Path
) -> None:
    box = slurm(nodes=1, gpus=0, grace_s=30)
    run, site = tmp_path / "run", tmp_path / "image.toml"
    site.write_text(SITE.format(image=cpu_image))
    command = [sys.executable, "-m", "btrm.submit", "pipeline", "--experiment", EXPERIMENT, "--site", str(site)]
    # As many checkpoints, but so many steps that it cannot be done before it is preempted.
    longer = ["--set", f"grpo.max_steps={STEPS}", "--set", f"grpo.save_steps={STEPS // 6}"]
    done = subprocess.run([*command, *longer, "--run", str(run)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (submission,) = submissions(run)

    wait_until(lambda: 4 <= (read_steps(run / "grpo") or (0, None))[0] < STEPS, submission, WAIT_S)
    faults.preempt(box)
    plan = submission.plan()
    wait_until(lambda: not unfinished(plan), submission, WAIT_S)

    attempts = submission.read_state("grpo", 0).attempts
    assert [a.outcome for a in attempts] == ["stopped", "done"], attempts
    assert (attempts[1].job, attempts[1].restarts) == (attempts[0].job, 1), "put back by the batch script outside"
    assert attempts[1].at_start >= 4, "went on from the checkpoint of its last breath"
    assert not verify_run(run)
    assert f"checkpoint-{STEPS}" in (run / "summarize" / "summary.md").read_text()
    for step in plan.steps:
        manifest = read_manifest(run / step.name)
        assert manifest is not None
        assert (manifest.image, manifest.image_sha256) == (str(cpu_image), sha256_file(cpu_image))
        assert manifest.code == code_digest()
        assert manifest.packages["ms-swift"] == own_version("4.6.0"), "the patched one"
