"""`btrm doctor` on the machine that it is typed on: is this a place to submit from, and is the site's file right?"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from btrm.checks import Check
from btrm.config import ConfigError
from btrm.hub import hub_cache, snapshot
from btrm.launch.limits import ask_cluster, check
from btrm.launch.offline import hub_items
from btrm.launch.plan import get_experiment
from btrm.launch.site import Site, visible_gpus
from btrm.launch.slurm import job_environ
from btrm.operate.doctor_check import disk_checks, interpreter_check, path_checks, paths_to_check, python_checks
from btrm.operate.doctor_node import Facts, Question, answers, take
from btrm.runs import Resources

PLACE = "here"


def facts(site: Site, run: Path) -> Facts:
    """Return what this machine has."""
    return take(Question(PLACE, paths_to_check(site, str(run), os.environ)))


def login_checks(site: Site, found: Facts, gpus: int, experiment: str | None) -> Iterator[Check]:
    """Yield what can be told without a job; `gpus` is how many a node is wanted to give."""
    yield from [interpreter_check(found)] if site.container else python_checks(found)
    if site.executor == "slurm":
        yield from _cluster(site, gpus)
    else:
        seen = visible_gpus()
        level = "OK" if seen >= gpus else "FAIL"
        yield Check(level, f"{PLACE}: {seen} GPUs, asked for {gpus}", "" if seen >= gpus else "--site of a cluster")
    yield from path_checks(found, absent="WARN" if site.executor == "slurm" else "FAIL")
    yield from disk_checks(found)
    yield from _sharing(site, found, Path(found.paths["run"].path))
    yield from _offline(site, experiment)


def sbatch_words(site: Site) -> list[str]:
    """Return the site's own options, as srun and sbatch take them."""
    named = {"partition": site.partition, "account": site.account, "qos": site.qos, "constraint": site.constraint}
    given = {**{name: value for name, value in named.items() if value}, **site.slurm}
    return [f"--{name}={value}" for name, value in given.items()]


def _cluster(site: Site, gpus: int) -> Iterator[Check]:
    commands = {"scontrol": ["scontrol", "ping"], "squeue": ["squeue", "--me", "-h"]}
    commands["sbatch"] = ["sbatch", "--test-only", *sbatch_words(site), "--time=1", "--wrap=true"]
    missing = [name for name in (*commands, "srun") if shutil.which(name) is None]
    if missing:
        fix = "a login node of the cluster, or load Slurm's module"
        yield Check("FAIL", f"Slurm: {', '.join(missing)} not on PATH", fix)
        return
    try:
        limits = ask_cluster(site)
    except ConfigError as error:
        yield Check("FAIL", str(error), "is slurmctld up (scontrol ping), is SLURM_CONF right?")
        return
    wanted = gpus or int(site.gpu_type is not None)
    problems = check(limits, site, Resources(gpus=wanted, cpus=1, mem_gb=1, time_min=1), site.name)
    yield from (Check("FAIL", problem, "change the site's file; btrm site init writes one") for problem in problems)
    said = {name: answer for name, words in commands.items() if (answer := answers(words))}
    for name, answer in said.items():
        yield Check("FAIL", f"{name}: {answer}", "correct the site's file" if name == "sbatch" else "ask the owner")
    if not problems and not said:
        submit = f", {limits.max_submit} jobs of yours" if limits.max_submit else ""
        bounds = f"array indices below {limits.max_array}{submit}, {limits.queued} queued"
        where = site.partition or limits.default_partition
        yield Check("OK", f"Slurm: scontrol, squeue and sbatch answer; partition {where} takes your jobs; {bounds}")
    yield from (Check("WARN", f"could not be asked: {what}", "[limits] in the site's file") for what in limits.unknown)
    partition = limits.partitions.get(site.partition or limits.default_partition or "")
    if site.submit_from_nodes and partition and partition.submit_nodes:
        allowed = ", ".join(partition.submit_nodes)
        yield Check("FAIL", f"submit_from_nodes: only {allowed} may submit", "submit_from_nodes = false")


def _sharing(site: Site, found: Facts, run: Path) -> Iterator[Check]:
    """Yield whether the umask fits the folder: in one that a group shares, others must be able to go on."""
    umask = site.umask or found.umask
    folder = next(path for path in (run, *run.absolute().parents) if path.exists())
    shared = bool(folder.stat().st_mode & 0o2020 == 0o2020)
    if shared and int(umask, 8) & 0o070:
        yield Check("WARN", f"umask {umask}, but {folder} is shared by its group", 'umask = "007" in the site\'s file')
    else:
        yield Check("OK", f"umask {umask}{' (the site)' if site.umask else ''}")


def _offline(site: Site, experiment: str | None) -> Iterator[Check]:
    if not site.offline:
        return
    env = {**job_environ(os.environ), **site.env}
    cache = hub_cache(env)
    if experiment is None:
        count = len(list(cache.glob("*--*/snapshots")))
        level = "OK" if count else "WARN"
        yield Check(level, f"offline: {count} models and data sets in {cache}", "--experiment NAME checks its own")
        return
    chosen = get_experiment(experiment)
    for item, places in hub_items(chosen).items():
        what = f"offline: {item} ({', '.join(places)})"
        if snapshot(item, env) is None:
            fix = f"btrm prefetch --experiment {experiment} --site {site.name}"
            yield Check("FAIL", f"{what}: not whole in {cache}", fix)
        else:
            yield Check("OK", f"{what}: in {cache}")
