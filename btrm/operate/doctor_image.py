"""`btrm doctor` on a site's image: what is asked outside and inside, and the lines that the answers give."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from btrm.checks import Check
from btrm.launch.runtime import image_sha256
from btrm.launch.site import Container, Site
from btrm.launch.snapshot import code_digest
from btrm.launch.submission import Plan
from btrm.operate.doctor_image_driver import driver_checks, nv_checks
from btrm.operate.doctor_image_facts import ROOM, file_line
from btrm.operate.doctor_image_leaks import leak_checks
from btrm.operate.doctor_image_places import CWD, bind_checks, cache_checks, room_checks
from btrm.operate.doctor_image_start import PYXIS, START, VERSION
from btrm.operate.doctor_node import DEPENDENCIES, Facts, Question

IMAGE_FILE = "image"  # its label among a question's files
_LINE = re.compile(r"\d+ \d+ \d+")  # inode, bytes, seconds


def outside_question(question: Question, site: Site, container: Container, plan: Plan, start: str) -> Question:
    """Return a question for the host with what the image's answers will be held against. `start` runs it once."""
    return replace(
        question,
        seen=_seen(site, container, plan),
        files={IMAGE_FILE: str(container.file)} if container.file else {},
        trials={**runtime_trials(container), START: ["bash", "-c", start]},
    )


def runtime_trials(container: Container) -> dict[str, list[str]]:
    """Return what tells whether a machine has the image's runtime."""
    if container.runtime == "pyxis":
        return {PYXIS: ["bash", "-c", "srun --help | grep -e --container-image"]}
    return {VERSION: [container.runtime, "--version"]}


def inside_question(question: Question, place: str) -> Question:
    """Return a host's question as it is put inside the image: a bind HOST:INSIDE is seen at INSIDE."""
    return replace(
        question,
        place=place,
        commands={},
        files={},
        trials={},
        paths=_places_inside(question.paths),
        seen=_places_inside(question.seen),
    )


def image_checks(site: Site, outside: Facts, inside: Facts, gpus: int) -> Iterator[Check]:
    """Yield what an image's own answers say, held against those of the machine that it ran on."""
    assert site.container is not None
    yield from _record(inside)
    yield from _required(inside)
    yield from bind_checks(outside, inside)
    yield from cache_checks(outside, inside)
    yield from leak_checks(outside, inside)
    yield from room_checks(outside, inside, gpus)
    yield from nv_checks(outside, inside, gpus, site.container.nv)
    yield from driver_checks(outside, inside, gpus)


def file_checks(container: Container) -> Iterator[Check]:
    """Yield whether the image is here and is the one that the site pins."""
    name, change = f"image {container.image}", "build or copy it, or change [container] image"
    if container.file is not None and not container.file.exists():
        yield Check("FAIL", f"{name}: not there", change)
        return
    try:
        digest = image_sha256(container)
    except OSError as error:
        yield Check("FAIL", f"{name}: {error.strerror}", "chmod a+rX the image and its folder")
        return
    if container.sha256 and container.sha256 != digest:
        fix = "the image that is pinned, or its own sha256 in the site's file"
        yield Check("FAIL", f"{name}: sha256 {digest}, pinned is {container.sha256}", fix)
    elif digest is None:
        kind = "a folder" if container.file else "a reference by tag, which may move,"
        level = "WARN" if container.unpinned else "FAIL"  # what submit makes of it
        yield Check(level, f"{name}: {kind} has no sha256", "a .sif, NAME@sha256:…, or unpinned = true")
    else:
        yield Check("OK", f"{name}: sha256 {digest[:16]}…{', as pinned' if container.sha256 else ''}")


def same_file_checks(container: Container, node: Facts) -> Iterator[Check]:
    """Yield whether the node's file is the one that is here."""
    there, name = node.files.get(IMAGE_FILE), f"{node.place}: image {container.image}"
    if there is None or container.file is None:
        return
    here = file_line(str(container.file))
    if not _LINE.fullmatch(there):
        yield Check("FAIL", f"{name}: {there}", "a file system that nodes share, or chmod a+rX")
    elif here == there:
        yield Check("OK", f"{name}: the file that is here")
    elif here.split()[1] != there.split()[1]:
        yield Check("FAIL", f"{name}: another file than here", "copy it there again, or share its file system")
    else:
        fix = "a file system that nodes share, or cp -p: each job hashes it first"
        yield Check("WARN", f"{name}: a copy, by its time", fix)


def _seen(site: Site, container: Container, plan: Plan) -> dict[str, str]:
    """Return {label: folder} of what must be the same inside as outside."""
    folders = {"the run": plan.root, CWD: str(Path.cwd()), **{place: place for place in ROOM}}
    folders |= {"the code": plan.code} if plan.code else {}
    folders |= {"the scratch": site.scratch} if site.scratch else {}
    folders |= {"the hub's home": "$HF_HOME", "the hub's cache": "$HF_HUB_CACHE"}  # as the job's script exports them
    return folders | {f"bind {bind}": bind.partition(":")[0] for bind in container.binds}


def _places_inside(places: Mapping[str, str]) -> dict[str, str]:
    """Return {label: path} as it is in the image, given as on the host: a bind HOST:INSIDE[:ro] is at INSIDE."""
    binds = {label: label.removeprefix("bind ").split(":") for label in places if label.startswith("bind ")}
    moved = {label: parts[1] for label, parts in binds.items() if len(parts) > 1 and parts[1] not in ("ro", "rw")}
    return {**places, **moved}


def _record(inside: Facts) -> Iterator[Check]:
    """Yield what the image says of itself."""
    record = inside.around.record
    if not record:
        fix = "one of btrm container build, where numbers are to be compared"
        yield Check("WARN", f"{inside.place}: no /opt/btrm/image.json: what it is made of is not on record", fix)
    elif problem := record.get("problem"):
        yield Check("FAIL", f"{inside.place}: /opt/btrm/image.json: {problem}", "build it again")
    else:
        lock, code = str(record.get("lock_sha256") or "?")[:12], record.get("code")
        whose = "this code" if code == code_digest() else f"other code ({code}), jobs bind a copy of this over it"
        what = f"{record.get('variant')}, lock {lock}, built {record.get('built')} with {whose}"
        yield Check("OK", f"{inside.place}: {what}")


def _required(inside: Facts) -> Iterator[Check]:
    """Yield what btrm needs and the image has too old, or has not; less what it lacks of all, which is told before."""
    told = {f"has no {name}" for name in DEPENDENCIES}
    if unfit := [problem for problem in inside.around.unfit if problem not in told]:
        fix = "an image built for this btrm (btrm container build), or btrm as it was then"
        yield Check("FAIL", f"{inside.place}: {'; '.join(unfit)}", fix)
