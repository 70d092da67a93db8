"""The places of an image: its home and caches, what is bound into it, and the room of /tmp and /dev/shm."""

from __future__ import annotations

from collections.abc import Iterator

from btrm.checks import Check
from btrm.operate.doctor_image_facts import CACHES, ROOM
from btrm.operate.doctor_node import Facts

CWD = "the working directory"
_LEAST_GB = {"/tmp": 1.0, "/dev/shm": 1.0}
_WANTED = {"/tmp": "temporary files", "/dev/shm": "vLLM, NCCL and data loaders"}


def cache_checks(outside: Facts, inside: Facts) -> Iterator[Check]:
    """Yield whether each cache can be written from inside, and is kept when the image has ended; HOME need not be."""
    home, caches = inside.caches["HOME"], {name: fact for name, fact in inside.caches.items() if name != "HOME"}
    implied = {name for name in caches if "$XDG_CACHE_HOME" in CACHES[name] and name not in inside.around.variables}
    told = [name for name in caches if name not in implied or not caches["XDG_CACHE_HOME"].problem]
    faults = [check for name in told for check in _cache(name, outside, inside)]
    yield from faults
    state = home.problem or "writable"
    if not faults:
        yield Check("OK", f"{inside.place}: {', '.join(caches)} are writable (HOME {home.path}: {state}, not needed)")


def _cache(name: str, outside: Facts, inside: Facts) -> Iterator[Check]:
    """Yield what is wrong with one cache; in /tmp there is no more to it than is said of /tmp."""
    fact, there = inside.caches[name], outside.caches[name]
    where = f"{name}={fact.path}" if name in inside.around.variables else f"{name} is not set, so it is {fact.path}"
    own = f"[env] {name} = a folder that is bound"
    if fact.problem:
        usable = there.path == fact.path and there.exists and not there.problem
        fix = f'binds = ["{fact.path}"] in [container]' if usable else own
        yield Check("FAIL", f"{inside.place}: {where}: {fact.problem}", fix)
    elif fact.mark != there.mark and not fact.path.startswith("/tmp/"):
        yield Check("WARN", f"{inside.place}: {where} is not the one outside: it ends with the image", own)


def bind_checks(outside: Facts, inside: Facts) -> Iterator[Check]:
    """Yield what is not in the image as it is outside: the very same folder, told by device and inode."""
    same: list[str] = []
    for label, mark in inside.seen.items():
        if label in ROOM or not outside.seen.get(label):
            continue  # which have a line each; not there outside either, which is told of the place itself
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
            yield Check("FAIL", f"{what} is not there", f'binds = ["{place}"] in [container]')
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
            yield Check("WARN", f"{what} is one of its own, in memory ({_gb(size)}), not that outside", undo)
        else:
            yield Check("OK", f"{what} is that outside, {_gb(size)}")


def _gb(size: float | None) -> str:
    if size is None:
        return "none"
    return f"{size * 1000:.0f} MB" if size < 1 else f"{size:.0f} GB"
