"""How an image starts: whether its runtime is there and new enough, and the time that it takes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from btrm.checks import Check, Level
from btrm.operate.doctor_image_complaints import FUSE, explain
from btrm.operate.doctor_image_trial import Trial
from btrm.operate.doctor_node import Facts

VERSION, START, PYXIS = "version", "start", "pyxis"  # the trials' names
_SLOW_S = 5.0
_OLDEST = {"apptainer": (1, 0), "singularity": (3, 8)}
_MOUNTS_ITSELF = (1, 1)  # the first apptainer that mounts an image without setuid, with squashfuse


_UNPACKED = re.compile(r"[Cc]onverting SIF file to temporary sandbox|Convert SIF file to sandbox")
_NO_SQUASHFUSE = re.compile(r"squashfuse not found")


def version(said: str) -> tuple[str, tuple[int, int]] | None:
    """Return the runtime's name and its version: `apptainer version 1.4.5`, `singularity-ce version 3.11.4-1.el8`."""
    found = re.search(r"\b(apptainer|singularity)\S* (?:version )?v?(\d+)\.(\d+)", said)
    return (found[1], (int(found[2]), int(found[3]))) if found else None


def start_checks(facts: Facts, absent: Level) -> Iterator[Check]:
    """Yield whether the runtime is there and new enough, and whether and how fast it starts the image.

    `absent` is the level of a machine without the runtime: on a login node it need not be.
    """
    asked, plugin = facts.trials.get(VERSION), facts.trials.get(PYXIS)
    if asked is not None:
        yield from _version(facts.place, asked, absent)
    if plugin is not None:
        yield from _plugin(facts.place, plugin)
    tried = facts.trials.get(START)
    if tried is not None and all(trial is None or trial.code == 0 for trial in (asked, plugin)):
        yield from _start(facts, tried)


def _version(place: str, asked: Trial, absent: Level) -> Iterator[Check]:
    said = asked.said.strip()
    if asked.code:
        fix = "load its module in setup (module load apptainer), or a partition whose nodes have it"
        yield Check(absent, f"{place}: no runtime for the image: {_last(said)}", fix)
        return
    found = version(said)
    if found is None:
        yield Check("WARN", f"{place}: cannot tell the runtime's version from {said[:80]!r}", "apptainer 1.1 or later")
        return
    name, number = found
    what = f"{place}: {name} {'.'.join(map(str, number))}"
    if number < _OLDEST[name]:
        yield Check("FAIL", f"{what} is too old", "apptainer 1.1 or later (another module, its owner)")
    elif name == "apptainer" and number < _MOUNTS_ITSELF:
        yield Check("WARN", f"{what} mounts images only when installed setuid", "apptainer 1.1 or later")
    else:
        yield Check("OK", what)


def _plugin(place: str, tried: Trial) -> Iterator[Check]:
    if tried.code:
        fix = 'its owner: pyxis in plugstack.conf, on login nodes and nodes; or runtime = "apptainer"'
        yield Check("FAIL", f"{place}: srun has no --container-image: pyxis is not there", fix)
    else:
        yield Check("OK", f"{place}: srun has --container-image (pyxis)")


def _start(facts: Facts, tried: Trial) -> Iterator[Check]:
    place, said, took = facts.place, tried.said, f"{tried.seconds:.1f} s"
    known = explain(said)
    if tried.code:
        means, fix = known or (_last(said), "try the command by hand (btrm container shell prints it)")
        why = f" ({_last(said)})" if known else ""
        yield Check("FAIL", f"{place}: the image does not start: {means}{why}", f"{fix}{_kernel(facts)}")
    elif _UNPACKED.search(said):
        why = "squashfuse is missing" if _NO_SQUASHFUSE.search(said) else "it cannot be mounted"
        yield Check("WARN", f"{place}: the image is unpacked at each start: {took} ({why})", f"{FUSE}{_kernel(facts)}")
    elif tried.seconds > _SLOW_S:
        yield Check(
            "WARN", f"{place}: the image takes {took} to start", "put it on a faster file system, scratch, or /tmp"
        )
    else:
        yield Check("OK", f"{place}: the image starts in {took}")


def _kernel(facts: Facts) -> str:
    """Return what on this machine would explain it."""
    around = facts.around
    seen = [*([] if around.fuse else ["no /dev/fuse that you may use"]), *filter(None, [around.namespaces])]
    return f" [seen there: {', '.join(seen)}]" if seen else ""


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    worst = [line for line in lines if line.startswith(("FATAL", "ERROR"))]
    return (worst or lines or ["it said nothing"])[-1][:200]
