"""Trainers over two nodes of a real Slurm: 2 x 2 ranks with gloo, killed in the middle, end at the same step."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from onebox_site import write_site
from sent_jobs import wait_until

from btrm.checkpoints import checkpoints, is_whole, step_of
from btrm.launch.control import unfinished
from btrm.launch.submission import submissions
from btrm.onebox import faults
from btrm.onebox.box import OneBox
from btrm.train.options import read_order
from btrm.train.rank import read_steps

EXPERIMENT = f"{Path(__file__).parent / 'tiny_toy.py'}:two_nodes"
WAIT_S = 420.0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_nodes_train_and_survive_a_kill(
    need_swift: None,  # noqa: ARG001
    slurm: Callable[..., OneBox],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Names that resolve: the ranks of both nodes meet at the first node's address.
    box = slurm(nodes=2, gpus=0, node_names=["127.0.0.1", "127.0.0.2"])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run, site = tmp_path / "run", write_site(tmp_path)
    command = [sys.executable, "-m", "btrm.submit", "pipeline", "--experiment", EXPERIMENT, "--site", str(site)]
    done = subprocess.run([*command, "--run", str(run)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (submission,) = submissions(run)
    wait_until(lambda: (read_steps(run / "grpo") or (0, None))[0] >= 5, submission, WAIT_S)
    job = next(sent.job_id for sent in submission.sent() if sent.key == "grpo")
    faults.task_kill(box, job)
    plan = submission.plan()
    wait_until(lambda: not unfinished(plan), submission, WAIT_S)
    attempts = submission.read_state("grpo", 0).attempts
    assert [a.outcome for a in attempts] == ["lost", "done"]
    assert attempts[0].cause == "killed"
    assert attempts[1].at_start >= 4
    assert read_order(run / "grpo" / "trainer.json").world_size == 4
    assert [step_of(c) for c in checkpoints(run / "grpo" / "checkpoints") if is_whole(c)] == [2, 4, 6, 8, 10, 12]
    assert submission.read_state("sft", 0).last is not None
