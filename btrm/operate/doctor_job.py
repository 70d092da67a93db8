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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from btrm.launch.sbatch import container_prefix, gpu_parameters, job_environment
from btrm.launch.site import Site
from btrm.launch.slurm import job_environ
from btrm.launch.snapshot import snapshot
from btrm.launch.submission import Plan
from btrm.operate.doctor_check import SCRATCH, Check, path_checks, paths_to_check, python_checks
from btrm.operate.doctor_login import sbatch_words
from btrm.operate.doctor_node import MARK, Facts, PathFact, Question
from btrm.runs import Resources

_NODE, _IMAGE = "node", "image"
_SKEW_S = 2.0
_BLIND = "BTRM-BLIND"
_MINUTES = 5
_TIMED_OUT = 124


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the facts by place, all that was printed, and the login node's clock before and after."""

    facts: dict[str, Facts]
    printed: str
    code: int
    started: float
    ended: float
    token: str


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


def compare(site: Site, here: Facts, answer: Answer, gpus: int) -> Iterator[Check]:
    """Yield the lines on what a node, and the image on it, answered."""
    places = [_NODE, _IMAGE] if site.container else [_NODE]
    said = " / ".join(answer.printed.strip().splitlines()[-3:]) or "nothing"
    if _BLIND in answer.printed:
        yield Check("FAIL", "the run's folder is not visible on the node", "--run on a file system that nodes share")
    for place in places:
        found = answer.facts.get(place)
        if found is None:
            yield Check("FAIL", f"{place}: no answer (exit {answer.code}): {said}", _hint(site, place, answer))
            continue
        yield from python_checks(found)
        yield from _same(here, found)
        yield from _visible(found, answer)
        yield from _seen_gpus(found, gpus)
        yield from path_checks(replace(found, paths=_without_candidates(found)), absent="FAIL")
        yield from _network(site, found)
    node = answer.facts.get(_NODE)
    if node is not None:
        yield from _clock(node, answer)
        yield from _candidates(site, node)
        yield from _submits(site, node)


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
        return "no answer in time", _TIMED_OUT
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
        place=_NODE,
        paths={
            **paths_to_check(site, str(folder), os.environ),
            "/dev/shm": "/dev/shm",
            **{name: name for name in SCRATCH},
        },
        commands={"sbatch": ["sbatch", "--test-only", *sbatch_words(site), "--time=1", "--wrap=true"]},
        token=str(folder / "token"),
        hub=_hub(),
    )
    inside = replace(question, place=_IMAGE, commands={}, paths=_inside(question.paths))
    lines = [*([f"umask {site.umask}"] if site.umask else []), *site.setup, *exports]
    lines.append(f"test -r {shlex.quote(question.token)} || echo {_BLIND}")
    module = ["-m", "btrm.operate.doctor_node"]
    lines.append(shlex.join([site.python or sys.executable, *module, json.dumps(asdict(question))]))
    if site.container is not None:
        lines.append(shlex.join([*container_prefix(site.container, plan), *module, json.dumps(asdict(inside))]))
    return "\n".join(lines)


def _inside(paths: dict[str, str]) -> dict[str, str]:
    """Return the paths as they are called in the image: a bind HOST:INSIDE is seen at INSIDE."""
    binds = {label: label.removeprefix("bind ").split(":") for label in paths if label.startswith("bind ")}
    return {**paths, **{label: parts[1] for label, parts in binds.items() if len(parts) > 1 and parts[1] != "ro"}}


def _without_candidates(found: Facts) -> dict[str, PathFact]:
    return {label: fact for label, fact in found.paths.items() if label not in SCRATCH or label == "/tmp"}


def _candidates(site: Site, node: Facts) -> Iterator[Check]:
    """Yield what the node offers as scratch, where the site names none."""
    there = {label: node.paths[label] for label in SCRATCH if label in node.paths}
    usable = [f"{label} ({fact.free_gb:.0f} GB)" for label, fact in there.items() if fact.exists and not fact.problem]
    if site.scratch is None and usable:
        yield Check("OK", f"node: scratch could be {', '.join(usable)}")


def _hub() -> str:
    address = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    return f"{address.hostname}:{address.port or (80 if address.scheme == 'http' else 443)}"


def _hint(site: Site, place: str, answer: Answer) -> str:
    if place == _IMAGE:
        return "does the image start on the node? (apptainer in setup, its path, binds)"
    if answer.code == _TIMED_OUT or "busy" in answer.printed:
        return "nodes are busy: --wait SECONDS, or another partition"
    return f"does {site.python or sys.executable} exist on nodes? (python = in the site's file)"


def _same(here: Facts, found: Facts) -> Iterator[Check]:
    minor, other = (facts.python.rpartition(".")[0] for facts in (here, found))
    names = ("submitit", "pydantic", "orjson", "numpy", "pyarrow")
    differ = [name for name in names if here.packages.get(name) != found.packages.get(name)]
    pairs = ", ".join(f"{n} {here.packages.get(n, '-')} here, {found.packages.get(n, '-')} there" for n in differ)
    if minor != other:
        yield Check("WARN", f"{found.place}: python {other}, {minor} here", "the same minor version in and out")
    if pairs:
        yield Check("WARN", f"{found.place}: {pairs}", "the same versions in and out")
    if minor == other and not pairs:
        yield Check("OK", f"{found.place}: python {found.python} and {', '.join(names)} as here")


def _visible(found: Facts, answer: Answer) -> Iterator[Check]:
    if found.token == answer.token:
        yield Check("OK", f"{found.place}: the run's folder is the same as here ({found.host})")
    else:
        fix = "--run on a shared file system" if found.place == _NODE else "a bind that covers the run's folder"
        yield Check("FAIL", f"{found.place}: the run's folder is not the one that is here", fix)


def _seen_gpus(found: Facts, gpus: int) -> Iterator[Check]:
    kinds = f" ({found.gpus[0].partition(': ')[2]})" if found.gpus else ""
    what = f"{found.place}: asked for {gpus} GPUs, sees {found.gpu_count}{kinds}"
    if found.gpu_count < gpus:
        yield Check("FAIL", what, "another gpu_request in the site's file: gpus-per-node, gres, gpu_type")
    elif gpus and not found.gpus:
        yield Check(
            "WARN", f"{what}, but nvidia-smi does not answer", "the driver on the node; nv = true in [container]"
        )
    else:
        yield Check("OK", what)


def _network(site: Site, found: Facts) -> Iterator[Check]:
    if site.offline:
        return
    if found.hub:
        yield Check("WARN", f"{found.place}: no way to {_hub()}: {found.hub}", "offline = true, and btrm prefetch")
    else:
        yield Check("OK", f"{found.place}: reaches {_hub()}")


def _clock(node: Facts, answer: Answer) -> Iterator[Check]:
    """Yield the skew that is certain: how far the node's time lies outside the time that its job took here."""
    skew = max(answer.started - node.time, node.time - answer.ended, 0.0)
    level = "OK" if skew < _SKEW_S else "WARN"
    fix = "" if level == "OK" else "ask the owner for NTP; times in logs and status will be off"
    yield Check(level, f"node: clock {'agrees' if level == 'OK' else f'is off by at least {skew:.0f} s'}", fix)


def _submits(site: Site, node: Facts) -> Iterator[Check]:
    said = node.commands["sbatch"]
    if not said:
        yield Check(
            "OK", "node: sbatch works in a job" + ("" if site.submit_from_nodes else " (the site does not use it)")
        )
    elif site.submit_from_nodes:
        yield Check(
            "FAIL", f"node: sbatch does not work in a job: {said}", "submit_from_nodes = false in the site's file"
        )
    else:
        yield Check("OK", "node: no sbatch in a job, and submit_from_nodes is false")
