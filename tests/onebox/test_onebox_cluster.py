from __future__ import annotations

from collections.abc import Callable

import pytest

from btrm.onebox.box import OneBox

pytestmark = pytest.mark.slow
Start = Callable[..., OneBox]


def test_jobs_side_by_side_have_gpus_of_their_own(slurm: Start) -> None:
    box = slurm(nodes=1, gpus=8)
    line = "echo $CUDA_VISIBLE_DEVICES; sleep 1"
    jobs = [box.run("sbatch", "--parsable", "-G2", "-o", f"{box.root}/%j.out", "--wrap", line) for _ in range(4)]
    box.wait_until("all jobs done", lambda: not box.run("squeue", "-h"))
    seen = [gpu for job in jobs for gpu in (box.root / f"{job}.out").read_text().strip().split(",")]
    assert sorted(seen) == list("01234567")


def test_a_cluster_is_found_again_by_its_folder(slurm: Start) -> None:
    box = slurm(nodes=2, gpus=1)
    again = OneBox.open(box.root)
    assert again == box and again.daemons.keys() == box.daemons.keys() >= {"slurmctld", "slurmd.n2"}
