"""`btrm doctor` on a site's image: what is asked outside and inside, and the lines that the answers give."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from btrm.checks import Check
from btrm.config import ConfigError
from btrm.images import image_digest
from btrm.launch.site import Container, Site
from btrm.launch.submission import Plan
from btrm.operate.doctor_image_driver import driver_checks, nv_checks
from btrm.operate.doctor_image_facts import ROOM, file_line
from btrm.operate.doctor_image_leaks import leak_checks
from btrm.operate.doctor_image_places import CWD, bind_checks, cache_checks, room_checks
from btrm.operate.doctor_image_start import START, VERSION
from btrm.operate.doctor_node import Facts, Question

IMAGE_FILE = "image"  # its label among a question's files
_REQUIRED = re.compile(r"([\w.-]+)\s*>=\s*([\d.]+)\s*$")


def outside_question(question: Question, site: Site, container: Container, plan: Plan, start: list[str]) -> Question:
    """Return a question for the host with what the image's answers will be held against. `start` runs it once."""
    return replace(
        question,
        seen=_seen(site, container, plan),
        files={IMAGE_FILE: container.image} if is_file(container.image) else {},
        trials={VERSION: ["apptainer", "--version"], START: start},
    )


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


def is_file(image: str) -> bool:
    """Tell a file or a folder from a reference that the runtime resolves."""
    return "://" not in image and "#" not in image


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
    """Yield whether the image's file is here and is the one that the site pins."""
    if not is_file(container.image):
        pinned = "@sha256:" in container.image
        fix = "" if pinned else "a reference with @sha256:…, or a file: a tag may move"
        yield Check("OK" if pinned else "WARN", f"image {container.image}: a reference", fix)
        return
    try:
        digest = image_digest(container.image)
    except (ConfigError, OSError) as error:
        why = "not there" if isinstance(error, ConfigError) else error.strerror
        yield Check("FAIL", f"image {container.image}: {why}", "build or copy it, or change [container] image")
        return
    if digest is None:
        yield Check(
            "WARN", f"image {container.image}: a folder has no sha256", "a .sif where numbers are to be compared"
        )
    elif container.sha256 and container.sha256 != digest:
        fix = "the image that is pinned, or its own sha256 in the site's file"
        yield Check("FAIL", f"image {container.image}: sha256 {digest}, pinned is {container.sha256}", fix)
    else:
        pinned = ", as pinned" if container.sha256 else ""
        yield Check("OK", f"image {container.image}: sha256 {digest[:16]}…{pinned}")


def same_file_checks(container: Container, node: Facts) -> Iterator[Check]:
    """Yield whether the node's file is the one that is here."""
    there = node.files.get(IMAGE_FILE)
    if there is None:
        return
    here = file_line(container.image)
    if not re.fullmatch(r"\d+ \d+ \d+", there):
        fix = "a file system that nodes share, or chmod a+r"
        yield Check("FAIL", f"{node.place}: image {container.image}: {there}", fix)
    elif here.split()[1:] != there.split()[1:]:
        fix = "copy it there again, or one on a file system that nodes share"
        yield Check("FAIL", f"{node.place}: image {container.image} is another file there than here", fix)
    else:
        yield Check("OK", f"{node.place}: image {container.image} is the file that is here")


def _seen(site: Site, container: Container, plan: Plan) -> dict[str, str]:
    """Return {label: folder} of what must be the same inside as outside."""
    folders = {"the run": plan.root, CWD: str(Path.cwd()), **{place: place for place in ROOM}}
    folders |= {"the code": plan.code} if plan.code else {}
    folders |= {"the scratch": site.scratch} if site.scratch else {}
    folders |= {"the hub's cache": "$HF_HOME"}
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
        named = " ".join(str(record.get(name) or "?") for name in ("variant", "btrm_version"))
        lock = str(record.get("lock_sha256") or "?")[:12]
        yield Check(
            "OK", f"{inside.place}: {named}, lock {lock}, built {record.get('built', '?')}; jobs run the code here"
        )


def _required(inside: Facts) -> Iterator[Check]:
    """Yield which of the packages that this btrm needs are too old in the image; one that lacks is said elsewhere."""
    old: list[str] = []
    for line in metadata.requires("btrm") or []:
        if (found := _REQUIRED.fullmatch(line.partition(";")[0].strip())) and "extra" not in line:
            have = inside.packages.get(found[1])
            if have is not None and _numbers(have) < _numbers(found[2]):
                old.append(f"{found[1]} {have} (needs {found[2]})")
    if old:
        yield Check("FAIL", f"{inside.place}: {', '.join(old)}", "an image built for this btrm, or btrm as it was then")


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"[\d.]+", version)
    return tuple(int(part) for part in found[0].split(".") if part) if found else ()
