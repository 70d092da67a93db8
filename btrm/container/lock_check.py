"""`btrm container lock --check`: is a lock whole, is it what its short list asks for, and are its files to be had?

Nothing is installed: uv resolves the set anew, from the index and with an empty cache, for the lock's Python and
platform, with every version held where the lock has it. That this can be done is what `pip check` would say of the
installed set; the files and hashes that come of it are held against the lock's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from btrm.checks import Check
from btrm.container.lock_index import Resolved, resolve
from btrm.container.lock_text import Pin, in_step, read, readable
from btrm.container.variants import Lock


def check_all(locks: Sequence[Lock], find_links: Sequence[str] = ()) -> Iterator[Check]:
    """Yield the lines of all locks, in order; they wait for the index side by side."""
    with tempfile.TemporaryDirectory() as cache, ThreadPoolExecutor() as pool:
        for checks in pool.map(lambda lock: [*check(lock, Path(cache), find_links)], locks):
            yield from checks


def check(lock: Lock, cache: Path, find_links: Sequence[str] = ()) -> Iterator[Check]:
    """Yield a line a check; the index is asked only where the lock is whole. `cache` is uv's, kept between locks."""
    again = f"git checkout {lock.path.name}, or btrm container lock {lock.name}"
    problems = [*readable(lock.path), *in_step(lock)]
    if not problems:
        resolved = resolve(lock, cache, find_links)
        problems = [resolved] if isinstance(resolved, str) else [*differences(read(lock.path), resolved)]
        for line in unknown(read(lock.path), resolved) if isinstance(resolved, Resolved) else ():
            yield Check("WARN", f"{lock.path.name}: {line}", "check again where the index of torch answers")
    yield from (Check("FAIL", f"{lock.path.name}: {line}", again) for line in problems)
    if not problems:
        count, python = len(read(lock.path)), lock.python
        yield Check("OK", f"{lock.path.name}: {count} packages, to be had for Python {python} by the hashes it has")


def differences(locked: Mapping[str, Pin], resolved: Resolved) -> Iterator[str]:
    """Yield what the lock has and should not, and what it should have."""
    for name in sorted(resolved.pins.keys() - locked.keys()):
        yield f"{name}: the set needs it ({resolved.pins[name].version}), the lock lacks it"
    for name in sorted(locked.keys() - resolved.pins.keys()):
        yield f"{name}: nothing needs it"
    for name in sorted(locked.keys() & resolved.pins.keys()):
        for file, sha256 in resolved.files[name].items():
            if sha256 not in locked[name].hashes:
                yield f"{name}: {file} has the sha256 {sha256}, which the lock lacks"
        strange = locked[name].hashes - resolved.pins[name].hashes
        if strange and name not in resolved.unsure:
            yield f"{name}: no index has a file with the sha256 {', '.join(sorted(strange))}"


def unknown(locked: Mapping[str, Pin], resolved: Resolved) -> Iterator[str]:
    """Yield, in a line, which hashes could not be looked at, since the index that lists them does not answer."""
    beyond = {
        name: len(strange)
        for name in sorted(resolved.unsure & resolved.pins.keys() & locked.keys())
        if (strange := locked[name].hashes - resolved.pins[name].hashes)
    }
    if beyond:
        yield f"{sum(beyond.values())} hashes of {', '.join(beyond)} could not be looked at"
