"""Submitting to Slurm: 100,000 elements planned, 1,000 sent to a real slurmctld, and the start of a job.

Targets: planned in < 10 s and < 500 MB; sent by 1 array call in < 1 s; < 3 s from srun to a job's first line.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from btrm.config import ConfigError
from btrm.launch.cluster import Options, cluster_plan, submit
from btrm.launch.plan import Experiment, Step
from btrm.launch.site import Site
from btrm.launch.submission import submissions
from btrm.onebox.box import OneBox
from btrm.onebox.conf import require_packages
from btrm.runs import Resources
from btrm.stage_table import get_stage

LIGHT = Resources(cpus=1, mem_gb=1, time_min=5)
STARTS = 5


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="btrm-", dir="/tmp") as folder:
        os.chdir(folder)
        good = planned(Path(folder) / "planned")
        try:
            require_packages(accounting=False)
        except ConfigError as error:
            print(f"sending and starting were not measured: {error}")
            return 0 if good else 1
        with OneBox(Path(folder) / "box", nodes=1, max_array=2000) as box:
            os.environ.update(box.env)
            good &= sent(box, Path(folder) / "sent")
            good &= started(box, Path(folder))
    return 0 if good else 1


def planned(root: Path) -> bool:
    """Plan 100,000 elements with the command that a person types."""
    command = [sys.executable, "-m", "btrm.submit", "teacher", "--run", str(root), "--site", "slurm"]
    began = time.perf_counter()
    done = subprocess.run(
        [*command, "--shards", "100000", "--dry-run"],
        env={**os.environ, "PATH": "", "SLURM_CONF": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = time.perf_counter() - began
    megabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    line = next(line for line in done.stdout.splitlines() if "sbatch calls" in line)
    print(f"100,000 elements: planned in {seconds:.2f} s, {megabytes:.0f} MB (targets < 10 s, < 500 MB): {line}")
    return seconds < 10 and megabytes < 500


def site(box: OneBox, **more: object) -> Site:
    return Site.build({"name": "bench", "executor": "slurm", "partition": "low", "patrol_s": 0, **more}, str(box.root))


def pairs_step() -> Step:
    config = get_stage("pairs").config.build({"n_pairs": {"train": 2, "validation": 2, "test": 2}})
    return Step("pairs", config, LIGHT)


def sent(box: OneBox, root: Path) -> bool:
    """Send 1,000 elements, held; count the array calls and the time from a checked plan to the last answer."""
    pairs, teacher = pairs_step(), Step("teacher", get_stage("teacher").config(), LIGHT, shards=1000)
    study = Experiment("bench", "", (pairs, teacher))
    where, options = site(box, slurm={"hold": "true"}), Options({})
    plan = cluster_plan(study, root, where, options)
    began = time.perf_counter()
    _, jobs = submit(plan, where, options)
    seconds = time.perf_counter() - began
    arrays = [job for job in jobs if job.kind == "array"]
    queued = len(box.run("squeue", "-r", "-h", "-o", "%i").split())
    box.run("scancel", "--me")
    print(f"1,000 elements: {len(arrays)} array call of {len(jobs)}, {seconds:.2f} s (targets: 1, < 1 s), {queued=}")
    return len(arrays) == 1 and seconds < 1


def started(box: OneBox, folder: Path) -> bool:
    """Measure from just before srun, in the batch script, to the job's own first line."""
    times: list[float] = []
    for number in range(STARTS):
        stamp = folder / f"stamp{number}"
        where = site(box, setup=(f"date +%s.%N > {stamp}",), submit_from_nodes=False)
        root = folder / f"start{number}"
        plan = cluster_plan(Experiment("bench", "", (pairs_step(),)), root, where, Options({}))
        submit(plan, where, Options({}))
        box.wait_until("the job's end", lambda: not box.run("squeue", "-h"))
        attempt = submissions(root)[-1].read_state("pairs", 0).last
        assert attempt is not None and attempt.outcome == "done", attempt
        times.append(attempt.started - float(stamp.read_text()))
    median = sorted(times)[STARTS // 2]
    print(f"srun to the first line: {median:.2f} s (median of {STARTS}, without torch, target < 3 s)")
    print(f"the same and then `import torch`: {median + imported(box):.2f} s")
    return median < 3


def imported(box: OneBox) -> float:
    """Return the median seconds that a task needs to import torch."""
    code = "import time; began = time.perf_counter(); import torch; print(time.perf_counter() - began)"
    return sorted(float(box.run("srun", sys.executable, "-c", code)) for _ in range(STARTS))[STARTS // 2]


if __name__ == "__main__":
    sys.exit(main())
