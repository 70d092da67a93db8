"""`btrm container lock --check`: is a lock whole, is it what its short list asks for, and are its files to be had?

Nothing is installed: uv resolves the set anew, from the index and with an empty cache, for the lock's Python and
platform, with every version held where the lock has it. That this can be done is what `pip check` would say of the
installed set; the files and hashes that come of it are held against the lock's.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from btrm.checks import Check
from btrm.container.lock import compile_words, uv
from btrm.container.variants import Lock, get_lock

_PIN = re.compile(r"([a-z0-9][a-z0-9.-]*)==([^\s\\]+) \\")
_HASH = re.compile(r" +--hash=sha256:([0-9a-f]{64})( \\)?")
_ASKED = re.compile(r"([A-Za-z0-9][\w.-]*)(?:==(\S+))?")
_ANSWER_S = 10.0


@dataclass(frozen=True, slots=True)
class Pin:
    """A line of a lock: one version, and the sha256 of each file that may be taken for it."""

    version: str
    hashes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Resolved:
    """What uv makes of a lock's versions today.

    `pins` has the hashes of all files that the index knows, `files` {package: {file: hash}} of those that the lock's
    platform can use. Of the packages `unsure`, the index within reach need not know all files.
    """

    pins: Mapping[str, Pin]
    files: Mapping[str, Mapping[str, str]]
    unsure: frozenset[str]


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
            yield Check("WARN", f"{lock.path.name}: {line}", "a source that has them: --find-links, or pip's index-url")
    yield from (Check("FAIL", f"{lock.path.name}: {line}", again) for line in problems)
    if not problems:
        count, python = len(read(lock.path)), lock.python
        yield Check("OK", f"{lock.path.name}: {count} packages, to be had for Python {python} by the hashes it has")


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


def resolve(lock: Lock, cache: Path, find_links: Sequence[str] = ()) -> Resolved | str:
    """Return what uv makes of the lock's versions; or its complaint, which names the package that does not fit."""
    env = {**_pip_sources(), **os.environ}
    answers = lock.torch_index is not None and _answers(f"{lock.torch_index}/torch/")
    # A mirror, and torch's index, which has more than torch: of what they hold they need not hold every file.
    unsure = frozenset(read(lock.path)) if answers or "UV_DEFAULT_INDEX" in env else frozenset[str]()
    if lock.torch_index and not answers:
        lock, unsure = lock.model_copy(update={"torch_index": None}), unsure | {"torch"}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        held = scratch / "pins.txt"
        held.write_text("".join(f"{name}=={pin.version}\n" for name, pin in read(lock.path).items()))
        words = [*uv(), "pip", "compile", *compile_words(lock, scratch), "--constraints", str(held)]
        words += ["--cache-dir", str(cache), *(word for place in find_links for word in ("--find-links", place))]
        # The second time all is in the cache; asking whether that is still so takes longer than everything else.
        for made in (["fresh.lock"], ["pylock.toml", "--format", "pylock.toml", "--offline"]):
            target = ["--output-file", str(scratch / made[0]), *made[1:]]
            done = subprocess.run([*words, *target], env=env, capture_output=True, text=True)
            if done.returncode:
                return f"its versions do not go together, or are not to be had: {' '.join(done.stderr.split())}"
        return Resolved(read(scratch / "fresh.lock"), _files(scratch / "pylock.toml"), unsure)


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
            yield f"{name}: the index has no file with the sha256 {', '.join(sorted(strange))}"


def unknown(locked: Mapping[str, Pin], resolved: Resolved) -> Iterator[str]:
    """Yield, in a line, which hashes could not be looked at, since the index within reach may list fewer files."""
    beyond = {
        name: len(strange)
        for name in sorted(resolved.unsure & resolved.pins.keys() & locked.keys())
        if (strange := locked[name].hashes - resolved.pins[name].hashes)
    }
    if beyond:
        yield f"{sum(beyond.values())} hashes of {', '.join(beyond)} are of files that no source within reach lists"


def _files(pylock: Path) -> dict[str, dict[str, str]]:
    """Return {package: {file: sha256}} of a pylock.toml; uv lists there what the platform can use."""
    packages: list[dict[str, Any]] = tomllib.loads(pylock.read_text())["packages"]
    found: dict[str, dict[str, str]] = {}
    for package in packages:
        files = [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else [])]
        found[package["name"]] = {str(file["url"]).rpartition("/")[2]: file["hashes"]["sha256"] for file in files}
    return found


def _pip_sources() -> dict[str, str]:
    """Return uv's variables for where pip is set up to look, which uv does not read. Not on a command line: an address
    may hold a password."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True)
    found: dict[str, list[str]] = {}
    for line in listed.stdout.splitlines():
        key, _, value = line.partition("=")
        found.setdefault(key.rpartition(".")[2], []).extend(str(ast.literal_eval(value)).split())
    names = {"UV_FIND_LINKS": "find-links", "UV_DEFAULT_INDEX": "index-url", "SSL_CERT_FILE": "cert"}
    told = {name: list(dict.fromkeys(found[key])) for name, key in names.items() if found.get(key)}
    return {name: ",".join(values) if name == "UV_FIND_LINKS" else values[0] for name, values in told.items()}


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=_ANSWER_S).close()
    except OSError:
        return False
    return True


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
