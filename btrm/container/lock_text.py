"""A lock as a file: what it pins, and whether it is whole and what its short list asks for. No index is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from btrm.container.variants import Lock, get_lock

_PIN = re.compile(r"([a-z0-9][a-z0-9.-]*)==([^\s\\]+) \\")
_HASH = re.compile(r" +--hash=sha256:([0-9a-f]{64})( \\)?")
_ASKED = re.compile(r"([A-Za-z0-9][\w.-]*)(?:==(\S+))?")


@dataclass(frozen=True, slots=True)
class Pin:
    """A line of a lock: one version, and the sha256 of each file that may be taken for it."""

    version: str
    hashes: frozenset[str]


def readable(path: Path) -> Iterator[str]:
    """Yield what is no pin with its hashes: a package without any, an option, an address, a name that comes twice."""
    seen: dict[str, int] = {}
    name = ""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("#") or not line:
            continue
        if found := _PIN.fullmatch(line):
            if name and not seen[name]:
                yield f"{name}: no hash"
            name = found[1]
            if name in seen:
                yield f"{name}: twice"
            seen[name] = 0
        elif name and _HASH.fullmatch(line):
            seen[name] += 1
        else:
            yield f"line {number}: {line.strip()!r} is no pin with hashes"
    if name and not seen[name]:
        yield f"{name}: no hash"


def read(path: Path) -> dict[str, Pin]:
    """Return {package: pin} of a lock that is readable."""
    found: dict[str, Pin] = {}
    for text in re.split(r"^(?=[a-z0-9])", path.read_text(), flags=re.MULTILINE)[1:]:
        head = re.match(r"([^=\s]+)==(\S+)", text)
        assert head is not None, f"{path}: {text!r}"
        found[head[1]] = Pin(head[2], frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})", text)))
    return found


def in_step(lock: Lock) -> Iterator[str]:
    """Yield what the short list asks for and the lock does not have, what it leaves out and has, and where it departs
    from the lock that it stands beside."""
    pinned = {name: pin.version for name, pin in read(lock.path).items()}
    for line in lock.source.read_text().splitlines():
        text = line.partition("#")[0].strip()
        found = _ASKED.fullmatch(text)
        if not text:
            continue
        if found is None:
            yield f"{lock.source.name}: {text!r} is neither NAME nor NAME==VERSION"
        elif (name := _normal(found[1])) not in pinned:
            yield f"{name}: {lock.source.name} asks for it, the lock lacks it"
        elif found[2] not in (None, pinned[name]):
            yield f"{name}: {lock.source.name} asks for {found[2]}, the lock has {pinned[name]}"
    yield from (f"{name}: shall be left out" for name in lock.leave_out if name in pinned)
    others = read(get_lock(lock.beside).path) if lock.beside else {}
    for name in sorted(pinned.keys() & others.keys()):
        if pinned[name] != others[name].version:
            yield f"{name}: {pinned[name]}, but {lock.beside} has {others[name].version}"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
