from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from onebox_jobs import node_of, output, submit, submit_writer, wait_for, writers

from btrm.config import ConfigError
from btrm.onebox.box import ClusterError, OneBox

pytestmark = pytest.mark.slow
Start = Callable[..., OneBox]


def test_jobs_side_by_side_have_gpus_of_their_own(slurm: Start) -> None:
    box = slurm(nodes=1, gpus=8)
    jobs = [submit(box, "echo $CUDA_VISIBLE_DEVICES; sleep 1", "-G2") for _ in range(4)]
    for job in jobs:
        wait_for(box, job, "COMPLETED")
    assert sorted(",".join(output(box, job).strip() for job in jobs).split(",")) == list("01234567")


def test_a_cluster_is_found_again_by_its_folder(slurm: Start) -> None:
    box = slurm(nodes=2, gpus=1)
    again = OneBox.open(box.root)
    assert again == box and list(again.daemons) == sorted(again.daemon_names)
    with pytest.raises(ConfigError, match="is up here already"):
        again.start()


def test_nodes_named_by_addresses_run_one_step_together(slurm: Start) -> None:
    box = slurm(gpus=2, node_names=("127.0.0.1", "127.0.0.2"))
    lines = box.run("srun", "-N2", "--gpus-per-node=2", "bash", "-c", "echo $SLURM_JOB_NODELIST $SLURMD_NODENAME")
    assert sorted(lines.splitlines()) == ["127.0.0.[1-2] 127.0.0.1", "127.0.0.[1-2] 127.0.0.2"]


def test_two_clusters_live_side_by_side(slurm: Start) -> None:
    one, two = slurm(nodes=1, gpus=1), slurm(nodes=2, gpus=0)
    job = submit_writer(two)
    one.stop()
    assert not one.daemons and len(two.daemons) == len(two.daemon_names) and writers(two, job)


def test_a_controller_that_restarts_keeps_its_jobs(slurm: Start) -> None:
    box = slurm(nodes=1, gpus=1)
    job = submit_writer(box)
    before = writers(box, job)
    box.restart_controller()
    wait_for(box, job, "RUNNING")
    assert node_of(box, job) == "n1" and writers(box, job) == before


def test_stop_ends_jobs_that_ignore_signals_and_have_left_their_step(slurm: Start) -> None:
    box = slurm(nodes=1, gpus=1)
    trap = "trap '' TERM HUP; while touch {} && sleep 0.1; do :; done"
    stray, plain = box.root / "stray", box.root / "plain"
    submit(box, f'setsid bash -c "{trap.format(stray)}" & {trap.format(plain)}')
    box.wait_until("both", lambda: stray.exists() and plain.exists())
    box.stop()
    times = [path.stat().st_mtime for path in (stray, plain)]
    time.sleep(0.4)
    assert times == [path.stat().st_mtime for path in (stray, plain)]


@pytest.mark.usefixtures("need_slurm")
def test_a_cluster_ends_with_the_process_that_holds_it(short_path: Path) -> None:
    root = short_path / "held"
    code = f"""
from pathlib import Path
from btrm.onebox.box import OneBox
with OneBox(Path({str(root)!r}), nodes=1, gpus=1):
    print("up", flush=True)
    input()
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "up\n"
        box = OneBox.open(root)
        job = submit_writer(box)
        assert writers(box, job)
        os.kill(holder.pid, signal.SIGKILL)
    box.wait_until("daemons gone", lambda: not box.daemons)
    box.wait_until("their jobs gone", lambda: not writers(box, job))


@pytest.mark.usefixtures("need_slurm")
def test_a_daemon_that_cannot_start_is_told_with_its_log(short_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"slurmctld.*NoSuchKey"):
        OneBox(short_path / "bad", extra="NoSuchKey=1").start()
    assert not OneBox.open(short_path / "bad").daemons
