"""`btrm container wheels`: the files of a lock in one folder, so that an image is built without a network."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from btrm.container.lock import pins
from btrm.container.variants import PLATFORM, Lock
from btrm.runs import StageError, sha256_file, user_cache

_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def wheel_folder(lock: Lock) -> Path:
    """Return where a lock's files are kept when nothing else is said."""
    return user_cache() / "wheels" / lock.name


def fill(lock: Lock, folder: Path) -> list[str]:
    """Download what the folder lacks, by pip as its user has set it up; return the packages that were missing.

    Only files with a hash of the lock count. Raises StageError with pip's words where something cannot be had.
    """
    lacking = missing(lock, folder)
    if not lacking:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    wanted = dict(entries(lock.path))
    torch = {name for name in lacking if name == "torch" and lock.torch_index}
    for name in torch:
        _download(lock, folder, [wanted[name]], fallback=lock.torch_index)
    _download(lock, folder, [wanted[name] for name in lacking if name not in torch])
    if left := missing(lock, folder):
        raise StageError(f"{folder}: still lacks {', '.join(left)}")
    return lacking


def missing(lock: Lock, folder: Path) -> list[str]:
    """Return the packages of a lock for which no file of the folder has one of its hashes."""
    here = {sha256_file(path) for path in folder.iterdir() if path.is_file()} if folder.is_dir() else set[str]()
    return [name for name, text in entries(lock.path) if here.isdisjoint(_HASH.findall(text))]


def entries(lock: Path) -> Iterator[tuple[str, str]]:
    """Yield (package, its lines) of a lock."""
    names, lines = pins(lock), list[str]()
    for line in lock.read_text().splitlines(keepends=True):
        if line.startswith("#"):
            continue
        lines.append(line)
        if not line.endswith("\\\n"):
            name = lines[0].partition("==")[0]
            assert name in names, f"{lock}: {lines[0]!r} is no pin"
            yield name, "".join(lines)
            lines = []


def _download(lock: Lock, folder: Path, requirements: list[str], fallback: str | None = None) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as listed:
        listed.write("".join(requirements))
        listed.flush()
        _pip(lock, folder, listed.name, fallback)


def _pip(lock: Lock, folder: Path, listed: str, fallback: str | None) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    command += ["--require-hashes", "--dest", str(folder), "--requirement", listed, *_target(lock)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and fallback:  # only where the configured sources lack it: they may be all that can be reached
        done = subprocess.run([*command, "--index-url", fallback], capture_output=True, text=True)
    if done.returncode:
        raise StageError(f"pip download: {done.stderr.strip()}")


def _target(lock: Lock) -> list[str]:
    """Return pip's words for the image's Python and platform: it knows no `this glibc or older`."""
    arch, _, newest = PLATFORM.partition("-manylinux_2_")
    tags = [*(f"manylinux_2_{minor}_{arch}" for minor in range(int(newest), 4, -1)), f"manylinux2014_{arch}"]
    tags += [f"manylinux2010_{arch}", f"manylinux1_{arch}", f"linux_{arch}"]
    words = ["--python-version", lock.python, "--implementation", "cp"]
    return words + [word for tag in tags for word in ("--platform", tag)]
