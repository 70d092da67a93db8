"""How an image starts: the runtime's version, the time it takes, and what its complaints mean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from btrm.checks import Check, Level
from btrm.operate.doctor_image_facts import Trial
from btrm.operate.doctor_node import Facts

VERSION, START, PYXIS = "version", "start", "pyxis"  # the trials' names
_SLOW_S = 5.0
_OLDEST = {"apptainer": (1, 0), "singularity": (3, 8)}
_MOUNTS_ITSELF = (1, 1)  # the first apptainer that mounts an image without setuid, with squashfuse


@dataclass(frozen=True, slots=True)
class Complaint:
    """What a runtime, or a program in the image, says; what it means; what helps."""

    said: re.Pattern[str]
    means: str
    fix: str


_FUSE = (
    "its owner: fuse loaded (/dev/fuse), squashfuse installed; until then an image that is a folder: build --sandbox"
)
_USERNS = "the node's owner: user.max_user_namespaces > 0 (sysctl), or apptainer-suid"
# In the order of what is worth saying first; apptainer's own words (its source, 1.1 to 1.5).
COMPLAINTS = tuple(
    Complaint(re.compile(said), means, fix)
    for said, means, fix in (
        (
            r"root filesystem extraction failed|could not create temporary sandbox",
            "the image is unpacked at each start, and that failed",
            _FUSE,
        ),
        (r"mount source (\S+) doesn't exist", r"\1 is to be bound and is not there", "make it there, or change binds"),
        (
            r"destination (\S+) doesn't exist in container",
            r"a bind's place \1 is not in the image",
            "bind to a place that it has, or `enable overlay = yes` in apptainer.conf (its owner)",
        ),
        (
            r"lstat (\S+): no such file|could not open image (\S+): .*no such file",
            r"the image is not there",
            "a file system that nodes share, or change [container] image",
        ),
        (r"could not open image.*permission denied", "the image cannot be read", "chmod a+rX the image and its folder"),
        (
            r"could not open image|image format not recognized|bad superblock",
            "the file is no image, or half of one",
            "copy or build it again; btrm container verify",
        ),
        (
            r"[Ff]ailed to create (?:user|container) namespace|user namespace (?:needed|required) but not allowed"
            r"|User namespace required but not allowed|No user namespaces available",
            "users may not have namespaces of their own",
            _USERNS,
        ),
        (
            r"Transport endpoint is not connected",
            "the image's FUSE mount died",
            "no signal but SIGURG to steps; " + _FUSE,
        ),
        (
            r"fusermount\S*: [^\n]*|squashfuse\S* exited[^\n]*|image driver mount failure|/dev/fuse: [^\n]*",
            r"FUSE does not work",
            _FUSE,
        ),
        (
            r"No space left on device|Disk quota exceeded",
            "no room to unpack the image",
            "APPTAINER_TMPDIR (in setup) on a larger disk; " + _FUSE,
        ),
        (r"No module named 'encodings'", "PYTHONHOME names another Python's folder", 'setup = ["unset PYTHONHOME"]'),
        (
            r"image_unfit: the image ([^\n(]*)",
            r"it \1",
            "an image built for this btrm (btrm container build), or btrm as it was then",
        ),
        (
            r"failed to get checksum for (\S+?):|pinging container registry (\S+?):",
            r"the registry does not answer for \1",
            "btrm container pull where there is internet, and image = that file",
        ),
        (
            r"could not mount (\S+): not a directory",
            r"\1 is a folder and its place in the image a file",
            "change binds",
        ),
        (
            r"No module named '?btrm",
            "its Python does not look where the code's copy is",
            "no PYTHONPATH of your own for the image: in args (--env), in [env] (APPTAINERENV_PYTHONPATH)",
        ),
        (
            r"error while loading shared libraries: (\S+?):",
            r"its Python lacks \1",
            "a Python that is in the image; or one of the host with all that it links to bound (ldd)",
        ),
        (
            r"unexpected keyword argument 'slots'|SyntaxError",
            "its Python is too old",
            "Python 3.11 or later in the image",
        ),
        (
            r"FATAL: +stat (\S+): no such file",
            r"\1 is not in the image, nor is what it links to",
            "binds in [container]: its folder and those of its links; or a python = that is in the image",
        ),
        (r'"?(\S+?)"?: executable file not found', r"\1 is not in the image", "python = in [container], args"),
        (r"unknown flag: (\S+)|unknown shorthand flag: (\S+)", r"this runtime does not know \1", "args in [container]"),
    )
)
_UNPACKED = re.compile(r"[Cc]onverting SIF file to temporary sandbox|Convert SIF file to sandbox")
_NO_SQUASHFUSE = re.compile(r"squashfuse not found")


def explain(said: str) -> tuple[str, str] | None:
    """Return what a complaint means and what helps, None for one that is not known."""
    for known in COMPLAINTS:
        if found := known.said.search(said):
            groups = [group for group in found.groups() if group]
            return known.means.replace(r"\1", groups[0] if groups else "something"), known.fix
    return None


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
        yield Check("WARN", f"{place}: the image is unpacked at each start: {took} ({why})", f"{_FUSE}{_kernel(facts)}")
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
