"""`btrm doctor --on-node`: the same questions asked inside a job of the site, and the answers compared."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from btrm.checks import Check
from btrm.launch.sbatch import container_prefix, gpu_parameters, job_environment
from btrm.launch.site import Site
from btrm.launch.slurm import job_environ
from btrm.launch.snapshot import snapshot
from btrm.launch.submission import Plan
from btrm.operate.doctor_check import SCRATCH, paths_to_check
from btrm.operate.doctor_compare import BLIND, IMAGE, NODE, TIMED_OUT, Answer, compare, hub_address
from btrm.operate.doctor_login import sbatch_words
from btrm.operate.doctor_node import MARK, Facts, Question
from btrm.runs import Resources

_MINUTES = 5


def node_checks(site: Site, here: Facts, run: Path, gpus: int, wait_s: int) -> Iterator[Check]:
    """Run a short job on the site and yield what it found; `wait_s` is how long to wait for a node."""
    folder = run / f".doctor-{uuid.uuid4().hex[:8]}"
    made = not run.exists()
    folder.mkdir(parents=True)
    try:
        answer = _ask(site, folder, gpus, wait_s)
    finally:
        shutil.rmtree(run if made else folder, ignore_errors=True)
    yield from compare(site, here, answer, gpus)


def _ask(site: Site, folder: Path, gpus: int, wait_s: int) -> Answer:
    token = uuid.uuid4().hex
    (folder / "token").write_text(token)
    command = srun(site, folder, gpus, wait_s)
    started = time.time()
    printed, code = _run(command, timeout_s=wait_s + 60 * _MINUTES)
    lines = [line.partition(MARK)[2] for line in printed.splitlines() if MARK in line]
    facts = {found.place: found for found in map(Facts.read, lines)}
    return Answer(facts, printed, code, started, time.time(), token)


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
    return [*fixed, *sbatch_words(site), *words, "bash", "-c", _script(site, folder)]


def _script(site: Site, folder: Path) -> str:
    """Return what the job runs: the site's setup as every job has it, then the question, outside and in the image."""
    plan = Plan(root=str(folder), steps=(), env=site.env, code=str(snapshot(folder)))
    exports = [f"export {name}={shlex.quote(value)}" for name, value in job_environment(site, plan).items()]
    question = Question(
        place=NODE,
        paths={
            **paths_to_check(site, str(folder), os.environ),
            "/dev/shm": "/dev/shm",
            **{name: name for name in SCRATCH},
        },
        commands={"sbatch": ["sbatch", "--test-only", *sbatch_words(site), "--time=1", "--wrap=true"]},
        token=str(folder / "token"),
        hub=hub_address(),
    )
    inside = replace(question, place=IMAGE, commands={}, paths=_inside(question.paths))
    lines = [*([f"umask {site.umask}"] if site.umask else []), *site.setup, *exports]
    lines.append(f"test -r {shlex.quote(question.token)} || echo {BLIND}")
    module = ["-m", "btrm.operate.doctor_node"]
    lines.append(shlex.join([site.python or sys.executable, *module, json.dumps(asdict(question))]))
    if site.container is not None:
        lines.append(shlex.join([*container_prefix(site.container, plan), *module, json.dumps(asdict(inside))]))
    return "\n".join(lines)


def _inside(paths: dict[str, str]) -> dict[str, str]:
    """Return the paths as they are called in the image: a bind HOST:INSIDE is seen at INSIDE."""
    binds = {label: label.removeprefix("bind ").split(":") for label in paths if label.startswith("bind ")}
    return {**paths, **{label: parts[1] for label, parts in binds.items() if len(parts) > 1 and parts[1] != "ro"}}
