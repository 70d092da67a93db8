"""Is the node's driver new enough for the CUDA in the image, and does `--nv` bring its libraries in?"""

from __future__ import annotations

import re
from collections.abc import Iterator

from btrm.checks import Check
from btrm.operate.doctor_image_facts import Around
from btrm.operate.doctor_node import Facts

# The oldest driver that runs programs of a CUDA release (docs.nvidia.com, CUDA Compatibility, minor versions).
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}
# `580.65.06` alone, as nvidia-smi says it, or in the kernel's line; no other number there has three parts.
_DRIVER = re.compile(r"(?:^|\s)(\d{3,})\.(\d+)(?:\.\d+)?(?=\s|$)")


def driver_version(said: str) -> int | None:
    """Return the driver's release (580 of 580.65.06) from nvidia-smi's line or the kernel's; None: not to be told."""
    found = _DRIVER.search(said)
    return int(found[1]) if found else None


def needed_driver(image: Around) -> tuple[int, str] | None:
    """Return the oldest driver that an image runs with and who says so; None for one that wants no GPU.

    What an image says of itself counts more than the CUDA release of its torch.
    """
    own = image.record.get("driver")
    if isinstance(own, int):
        return own, f"the image ({image.record.get('variant', 'btrm')})"
    if not image.cuda:
        return None
    major = int(image.cuda.partition(".")[0])
    newest = max(OLDEST_DRIVER)
    return OLDEST_DRIVER.get(major, OLDEST_DRIVER[newest] if major > newest else 0), f"torch's CUDA {image.cuda}"


def driver_checks(outside: Facts, inside: Facts, gpus: int) -> Iterator[Check]:
    """Yield whether the driver outside is new enough for what is inside; little where no GPU is asked for."""
    said, needed = outside.around.driver, needed_driver(inside.around)
    place = f"{inside.place}: "
    if not said:
        if gpus:
            wants = f"{needed[1]} needs {needed[0]} or later" if needed else "the image has no CUDA either"
            yield Check("WARN", f"{outside.place}: no NVIDIA driver; {wants}", "a partition whose nodes have GPUs")
        return
    if needed is None:
        if gpus:
            fix = "an image with CUDA (btrm container build --variant cu13)"
            yield Check("FAIL", f"{place}asked for {gpus} GPUs, and no torch with CUDA is in it", fix)
        return
    oldest, who = needed
    version = driver_version(said)
    if version is None:
        fix = f"see that nvidia-smi there says {oldest} or later"
        yield Check("WARN", f"{outside.place}: cannot tell the driver's version from {said[:80]!r}", fix)
    elif version < oldest:
        fix = "an image for it (btrm container build --variant cu12), or a newer driver (its owner)"
        level = "FAIL" if gpus else "WARN"
        yield Check(level, f"{place}driver {version} is too old: {who} needs {oldest} or later", fix)
    else:
        yield Check("OK", f"{place}driver {version}; {who} needs {oldest} or later")


def nv_checks(outside: Facts, inside: Facts, gpus: int, nv: bool) -> Iterator[Check]:
    """Yield whether the driver's library, its tool and the devices came into the image."""
    if not outside.around.driver and not outside.around.devices:
        return
    if not nv:
        if gpus:
            yield Check("FAIL", f"{inside.place}: asked for {gpus} GPUs without --nv", "nv = true in [container]")
        return
    lacking = _lacking(outside, inside)
    if lacking:
        fix = "ldconfig -p there lists libcuda.so.1? nvliblist.conf of apptainer names it? --nv not undone in args?"
        yield Check("FAIL" if gpus else "WARN", f"{inside.place}: --nv brought no {', no '.join(lacking)}", fix)
    else:
        yield Check("OK", f"{inside.place}: --nv brought libcuda.so.1, nvidia-smi, {inside.around.devices} devices")


def _lacking(outside: Facts, inside: Facts) -> list[str]:
    devices = f"/dev/nvidia* ({inside.around.devices} of {outside.around.devices})"
    return [
        *([f"libcuda.so.1 ({inside.around.libcuda})"] if inside.around.libcuda else []),
        *(["nvidia-smi that answers"] if outside.gpus and not inside.gpus else []),
        *([devices] if inside.around.devices < outside.around.devices else []),
    ]
