"""What a node, and the image on it, answered to `btrm doctor --on-node`, held against what is here."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

from btrm.checks import Check, Level
from btrm.launch.site import Site
from btrm.operate.doctor_check import SCRATCH, disk_checks, interpreter_check, path_checks, python_checks
from btrm.operate.doctor_image import image_checks, same_file_checks
from btrm.operate.doctor_image_complaints import explain
from btrm.operate.doctor_image_facts import CACHES, ROOM
from btrm.operate.doctor_image_start import START, start_checks
from btrm.operate.doctor_node import MARK, Facts, PathFact
from btrm.operate.doctor_script import BLIND, Answer

NODE, IMAGE = "node", "image"
TIMED_OUT = 124
_SKEW_S = 2.0


def compare(site: Site, here: Facts, answer: Answer, gpus: int) -> Iterator[Check]:
    """Yield the lines on what a node, and the image on it, answered."""
    if BLIND in answer.printed:
        yield Check("FAIL", "the run's folder is not visible on the node", "--run on a file system that nodes share")
    node = answer.facts.get(NODE)
    if node is None:
        yield Check("FAIL", f"{NODE}: no answer (exit {answer.code}): {_last(answer.printed)}", _hint(site, answer))
    else:
        yield from _place(site, here, node, answer, gpus)
        if site.container:
            yield from same_file_checks(site.container, node)
    if site.container:
        yield from image_answer(site, here, answer, gpus, NODE, IMAGE, "FAIL")
    if node is not None:
        yield from _clock(node, answer)
        yield from _candidates(site, node)
        yield from _submits(site, node)


def image_answer(
    site: Site, here: Facts, answer: Answer, gpus: int, outer: str, inner: str, absent: Level
) -> Iterator[Check]:
    """Yield the lines on an image, from what was answered outside and inside."""
    outside, inside = answer.facts.get(outer), answer.facts.get(inner)
    if outside is not None:
        yield from start_checks(outside, absent)
    if inside is not None:
        yield from _place(site, here, inside, answer, gpus)
        if outside is not None:
            yield from image_checks(site, outside, inside, gpus)
    elif outside is None or outside.trials[START].code == 0:  # else it has been said why
        said = answer.printed if outside is None else answer.printed.rpartition(MARK)[2].partition("\n")[2]
        means, fix = explain(said) or (
            _last(said),
            "is python = of [container] on PATH in the image?",
        )
        yield Check("FAIL", f"{inner}: no answer (exit {answer.code}): {means}", fix)


def _place(site: Site, here: Facts, found: Facts, answer: Answer, gpus: int) -> Iterator[Check]:
    """Yield the lines that a node and the inside of an image have in common."""
    yield from [interpreter_check(found)] if site.container and found.place == NODE else python_checks(found)
    yield from _same(here, found)
    yield from _visible(found, answer)
    yield from _seen_gpus(found, gpus)
    yield from path_checks(replace(found, paths=_own_paths(found)), absent="FAIL")
    yield from disk_checks(found)
    yield from _network(site, found)


def hub_address() -> str:
    """Return HOST:PORT of the hub."""
    address = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    return f"{address.hostname}:{address.port or (80 if address.scheme == 'http' else 443)}"


def _last(printed: str) -> str:
    return " / ".join(printed.strip().splitlines()[-3:]) or "nothing"


def _hint(site: Site, answer: Answer) -> str:
    if answer.code == TIMED_OUT or "busy" in answer.printed:
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
        fix = "--run on a shared file system" if found.place == NODE else "a bind that covers the run's folder"
        yield Check("FAIL", f"{found.place}: the run's folder is not the one that is here", fix)


def _seen_gpus(found: Facts, gpus: int) -> Iterator[Check]:
    kinds = f" ({found.gpus[0].partition(': ')[2]})" if found.gpus else ""
    what = f"{found.place}: asked for {gpus} GPUs, sees {found.gpu_count}{kinds}"
    if found.gpu_count < gpus:
        fix = "another gpu_request in the site's file: gpus-per-node, gres, gpu_type"
        yield Check("FAIL", what, fix if found.place == NODE else "nv = true in [container]; a machine that has them")
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
        yield Check(
            "WARN", f"{found.place}: no way to {hub_address()}: {found.hub}", "offline = true, and btrm prefetch"
        )
    else:
        yield Check("OK", f"{found.place}: reaches {hub_address()}")


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


def _own_paths(found: Facts) -> dict[str, PathFact]:
    """Return the paths that have a line here: an image's caches and memory have their own, of scratch one is enough."""
    elsewhere = {*SCRATCH} - {"/tmp"} if found.place == NODE else {*SCRATCH, *ROOM, *CACHES}
    return {label: fact for label, fact in found.paths.items() if label not in elsewhere}


def _candidates(site: Site, node: Facts) -> Iterator[Check]:
    """Yield what the node offers as scratch, where the site names none."""
    there = {label: node.paths[label] for label in SCRATCH if label in node.paths}
    usable = [f"{label} ({fact.free_gb:.0f} GB)" for label, fact in there.items() if fact.exists and not fact.problem]
    if site.scratch is None and usable:
        yield Check("OK", f"node: scratch could be {', '.join(usable)}")
