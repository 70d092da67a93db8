"""`btrm doctor --on-node`: the same questions asked inside a job of the site, and the answers compared."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from btrm.checks import Check
from btrm.launch.sbatch import gpu_parameters
from btrm.launch.site import Site
from btrm.launch.slurm import job_environ
from btrm.operate.doctor_check import SCRATCH, paths_to_check
from btrm.operate.doctor_compare import IMAGE, NODE, TIMED_OUT, compare, hub_address
from btrm.operate.doctor_login import sbatch_words
from btrm.operate.doctor_node import Facts, Question
from btrm.operate.doctor_script import ask, folder_in, script
from btrm.runs import Resources

_MINUTES = 5


def node_checks(site: Site, here: Facts, run: Path, gpus: int, wait_s: int) -> Iterator[Check]:
    """Run a short job on the site and yield what it found; `wait_s` is how long to wait for a node."""
    with folder_in(run) as folder:
        command = srun(site, folder, gpus, wait_s)
        answer = ask(folder, lambda: _run(command, timeout_s=wait_s + 60 * _MINUTES))
    yield from compare(site, here, answer, gpus)


def _run(command: list[str], timeout_s: int) -> tuple[str, int]:
    """Return what srun printed and its exit status; a job that is not waited for any more does not stay behind."""
    pipe, errors = subprocess.PIPE, subprocess.STDOUT
    process = subprocess.Popen(command, env=job_environ(os.environ), stdout=pipe, stderr=errors, text=True)
    try:
        return process.communicate(timeout=timeout_s)[0], process.returncode
    except subprocess.TimeoutExpired:
        return "no answer in time", TIMED_OUT
    finally:
        process.terminate()  # srun ends its job; nothing happens to one that has ended


def srun(site: Site, folder: Path, gpus: int, wait_s: int) -> list[str]:
    """Return the command that asks: the script in words, so that it runs even where the folder is not visible."""
    need = Resources(gpus=gpus, cpus=1, mem_gb=2, time_min=_MINUTES)
    words = [f"--{name.replace('_', '-')}={value}" for name, value in gpu_parameters(need, site).items()]
    words += [f"--mem={need.mem_gb}G"] if site.request_memory else []
    limits = [f"--time={need.time_min}", f"--immediate={wait_s}", "--nodes=1", "--ntasks=1", "--cpus-per-task=1"]
    fixed = ["srun", "--job-name=btrm-doctor", "--quiet", *limits]
    return [*fixed, *sbatch_words(site), *words, "bash", "-c", script(site, folder, _question(site, folder), IMAGE)]


def _question(site: Site, folder: Path) -> Question:
    candidates = {name: name for name in SCRATCH}
    return Question(
        place=NODE,
        paths={**paths_to_check(site, str(folder), os.environ), "/dev/shm": "/dev/shm", **candidates},
        commands={"sbatch": ["sbatch", "--test-only", *sbatch_words(site), "--time=1", "--wrap=true"]},
        token=str(folder / "token"),
        hub=hub_address(),
    )
