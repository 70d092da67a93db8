"""What is said where an image, or the Python in it, does not start: what it means, what helps."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Complaint:
    """What a runtime, or a program in the image, says; what it means; what helps."""

    said: re.Pattern[str]
    means: str
    fix: str


FUSE = "its owner: fuse loaded (/dev/fuse), squashfuse installed; until then an image that is a folder: build --sandbox"
_USERNS = "the node's owner: user.max_user_namespaces > 0 (sysctl), or apptainer-suid"
# In the order of what is worth saying first; apptainer's own words (its source, 1.1 to 1.5).
COMPLAINTS = tuple(
    Complaint(re.compile(said), means, fix)
    for said, means, fix in (
        (
            r"[Ff]ailed to create (?:user|container) namespace|user namespace (?:needed|required) but not allowed"
            r"|User namespace required but not allowed|No user namespaces available",
            "users may not have namespaces of their own",
            _USERNS,
        ),
        (
            r"No space left on device|Disk quota exceeded",
            "no room to unpack the image",
            "APPTAINER_TMPDIR (in setup) on a larger disk; " + FUSE,
        ),
        (
            r"root filesystem extraction failed|could not create temporary sandbox",
            "the image is unpacked at each start, and that failed",
            FUSE,
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
            r"Transport endpoint is not connected",
            "the image's FUSE mount died",
            "no signal but SIGURG to steps; " + FUSE,
        ),
        (
            r"fusermount\S*: [^\n]*|squashfuse\S* exited[^\n]*|image driver mount failure|/dev/fuse: [^\n]*",
            r"FUSE does not work",
            FUSE,
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


def explain(said: str) -> tuple[str, str] | None:
    """Return what a complaint means and what helps, None for one that is not known."""
    for known in COMPLAINTS:
        if found := known.said.search(said):
            groups = [group for group in found.groups() if group]
            return known.means.replace(r"\1", groups[0] if groups else "something"), known.fix
    return None
