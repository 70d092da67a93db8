"""A lock's versions, resolved anew from the package index by uv: the files and hashes that are to be had today."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
import tomllib
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from btrm.container.lock import compile_words, uv
from btrm.container.lock_text import Pin, read
from btrm.container.variants import Lock

_ANSWER_S = 10.0


@dataclass(frozen=True, slots=True)
class Resolved:
    """What uv makes of a lock's versions today.

    `pins` has the hashes of all files that are listed, `files` {package: {file: hash}} of those that the lock's
    platform can use. The packages `unsure` have an index of their own, which does not answer: their files elsewhere
    need not be all.
    """

    pins: Mapping[str, Pin]
    files: Mapping[str, Mapping[str, str]]
    unsure: frozenset[str]


def resolve(lock: Lock, cache: Path, find_links: Sequence[str] = ()) -> Resolved | str:
    """Return what uv makes of the lock's versions; or its complaint, which names the package that does not fit."""
    env = {**_pip_sources(), **os.environ}
    unsure = frozenset[str]()
    if lock.torch_index and not _answers(f"{lock.torch_index}/torch/"):
        lock, unsure = lock.model_copy(update={"torch_index": None}), frozenset({"torch"})
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
