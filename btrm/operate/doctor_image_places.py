"""The places of an image: its home and caches, what is bound into it, and the room of /tmp and /dev/shm."""

from __future__ import annotations

from collections.abc import Iterator

from btrm.checks import Check
from btrm.operate.doctor_image_facts import ROOM
from btrm.operate.doctor_node import Facts

CWD = "the working directory"
_LEAST_GB = {"/tmp": 1.0, "/dev/shm": 1.0}
_WANTED = {"/tmp": "temporary files", "/dev/shm": "vLLM, NCCL and data loaders"}


def cache_checks(outside: Facts, inside: Facts) -> Iterator[Check]:
    """Yield whether HOME and each cache can be written from inside, and is kept where the job's node keeps it."""
    yield from _home(inside)
    faults = [check for name in inside.caches for check in _cache(name, outside, inside)]
    yield from faults
    if not faults:
        yield Check("OK", f"{inside.place}: {', '.join(inside.caches)} are writable")


def _home(inside: Facts) -> Iterator[Check]:
    home = inside.around.variables.get("HOME", "")
    unset = [name for name in inside.caches if not inside.around.variables.get(name)]
    below = [name for name in unset if inside.caches[name].path.startswith(f"{home}/")]
    if below and home and any(inside.caches[name].problem for name in below):
        return  # each cache that falls into it says so
    what = f"HOME={home}" if home else "no HOME"
    yield Check(
        "OK", f"{inside.place}: {what}; no cache needs it" if not below else f"{inside.place}: {what}, writable"
    )


def _cache(name: str, outside: Facts, inside: Facts) -> Iterator[Check]:
    fact, given = inside.caches[name], inside.around.variables.get(name)
    if fact.problem:
        where = f"{name}={fact.path}" if given else f"{name} is not set and means {fact.path}"
        here = outside.caches.get(name)
        bind = here is not None and here.path == fact.path and not here.problem
        fix = f'binds = ["{fact.path}"] in [container]' if bind else f"[env] {name} = a folder that is bound"
        yield Check("FAIL", f"{inside.place}: {where}: {fact.problem}", fix)


def bind_checks(outside: Facts, inside: Facts) -> Iterator[Check]:
    """Yield what is not in the image as it is outside: the very same folder, told by device and inode."""
    same: list[str] = []
    for label, mark in inside.seen.items():
        if not outside.seen.get(label):
            continue  # not there outside either, which is told of the place itself
        if mark == outside.seen[label]:
            same.append(label)
            continue
        what = "is not there" if not mark else "is another folder of that name"
        if label == CWD:
            fix = "a bind of it; relative paths of data and FILE.py mean nothing inside otherwise"
            yield Check("WARN", f"{inside.place}: {label} {what}", fix)
        else:
            yield Check("FAIL", f"{inside.place}: {label} {what}", "binds in [container]: add its folder")
    if same:
        yield Check("OK", f"{inside.place}: {', '.join(same)} as outside")


def room_checks(outside: Facts, inside: Facts, gpus: int) -> Iterator[Check]:
    """Yield a line each for /tmp and /dev/shm: their size inside, held against that outside."""
    for place in ROOM:
        size, whole = inside.around.sizes_gb.get(place), outside.around.sizes_gb.get(place)
        what = f"{inside.place}: {place}"
        if size is None:
            yield Check("FAIL", f"{what} is not there", f'args = ["--bind", "{place}"] in [container]')
            continue
        own = inside.seen.get(place) == outside.seen.get(place)
        undo = f'no --contain in [container] args, or binds = ["{place}"]'
        fact = inside.paths.get(place)
        if fact is not None and fact.problem:
            yield Check("FAIL", f"{what}: {fact.problem}", undo)
        elif size < _LEAST_GB[place]:
            level = "FAIL" if gpus or place == "/tmp" else "WARN"
            fix = "its owner: more of it" if own else undo
            yield Check(level, f"{what} is {_gb(size)} ({_gb(whole)} outside), little for {_WANTED[place]}", fix)
        elif not own:
            yield Check("WARN", f"{what} is one of its own, in memory ({_gb(size)}), not the node's", undo)
        else:
            yield Check("OK", f"{what} is the node's own, {_gb(size)}")


def _gb(size: float | None) -> str:
    if size is None:
        return "none"
    return f"{size * 1000:.0f} MB" if size < 1 else f"{size:.0f} GB"
