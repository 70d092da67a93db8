from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from onebox_jobs import submit_writer, writers

from btrm.onebox.box import OneBox

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("need_slurm")]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cluster(short_path: Path) -> Generator[Run]:
    """`cluster("up", …)` runs `btrm cluster up …` with the default folder moved to the test's own."""
    env = os.environ | {"XDG_STATE_HOME": str(short_path)}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "btrm.cli", "cluster", *words]
        return subprocess.run(command, env=env, text=True, capture_output=True, timeout=240, check=False)

    yield run
    run("down")


def test_up_exec_fail_and_down(cluster: Run, short_path: Path) -> None:
    up = cluster("up", "--nodes", "2", "--gpus", "4")
    root = short_path / "btrm" / "cluster"
    assert up.returncode == 0 and "2 nodes of 4 GPUs (n1, n2)" in up.stdout
    assert f"export SLURM_CONF={root}/etc/slurm.conf" in up.stdout
    assert "up already" in cluster("up", "--nodes", "8").stdout
    assert cluster("exec", "srun", "-N2", "--gpus-per-node=4", "bash", "-c", "echo $CUDA_VISIBLE_DEVICES").stdout == (
        "0,1,2,3\n0,1,2,3\n"
    )
    assert cluster("exec", "--", "bash", "-c", "exit 7").returncode == 7
    assert "node 'n3': no such node; valid: n1, n2" in cluster("fail", "drain", "n3").stderr
    assert cluster("fail", "node-kill", "n1").returncode == 0
    assert "dead: slurmd.n1" in cluster("status").stdout

    box = OneBox.open(root)
    job = submit_writer(box, "--nodelist=n2")
    # A user's shell with SLURM_CONF set is not the cluster's: `down` must leave it alone.
    with subprocess.Popen(["cat"], env=os.environ | box.env, stdin=subprocess.PIPE) as shell:
        assert cluster("down").returncode == 0
        assert shell.poll() is None
    assert not box.daemons and not writers(box, job)
    assert "the cluster is down" in cluster("status").stderr
    assert cluster("up", "--nodes", "1", "--gpus", "0").returncode == 0
    assert cluster("exec", "squeue", "-h").stdout == "", "a new cluster, not the old one's jobs"


def test_two_folders_are_two_clusters(cluster: Run, short_path: Path) -> None:
    other = ("--dir", str(short_path / "other"))
    assert f"exec --dir {other[1]} " in cluster("up", "--nodes", "1", *other).stdout
    assert cluster("up", "--nodes", "1").returncode == 0
    assert cluster("down").returncode == 0
    assert cluster("exec", *other, "srun", "echo", "alive").stdout == "alive\n"
    assert cluster("down", *other).returncode == 0
