"""`btrm container lock`: from the short list that people edit to the complete one, every file by its hash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from btrm.config import ConfigError
from btrm.container.variants import PLATFORM, Lock, get_lock
from btrm.runs import StageError


def write_lock(lock: Lock, *, upgrade: bool, words: Sequence[str] = ()) -> str:
    """Resolve `locks/NAME.in` into `locks/NAME.lock` and return what uv said of it.

    Versions that the lock has stay, unless `upgrade`; `words` are uv's own, as --find-links DIR. Raises ConfigError
    where this is no checkout or there is no uv, and StageError where nothing fits together.
    """
    if not os.access(lock.path.parent, os.W_OK):
        raise ConfigError(f"{lock.path.parent}: not writable; locks are made in a checkout of btrm")
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / lock.path.name
        if lock.path.exists():
            # The versions alone: uv would keep hashes, too, unasked whether any index has them.
            made.write_text("".join(f"{name}=={version}\n" for name, version in pins(lock.path).items()))
        command = [*uv(), "pip", "compile", *compile_words(lock, Path(scratch)), *words, "--output-file", str(made)]
        done = subprocess.run([*command, *(["--upgrade"] if upgrade else [])], capture_output=True, text=True)
        if done.returncode:
            raise StageError(f"{lock.source}: does not resolve:\n{done.stderr.strip()}")
        shutil.copyfile(made, lock.path)
    return f"{lock.path}: {len(pins(lock.path))} packages"


def uv() -> list[str]:
    """Return the command of uv, the resolver that knows other Pythons and platforms than this machine's."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise ConfigError("uv: not here; pip install uv")
    return [found]


def pins(path: Path) -> dict[str, str]:
    """Return {package: version} of a lock."""
    lines = (line.split(" ")[0] for line in path.read_text().splitlines() if line[:1].isalnum())
    return dict(line.split("==", 1) for line in lines)


def compile_words(lock: Lock, scratch: Path) -> list[str]:
    """Return what uv is told to resolve a lock's short list; `scratch` takes what it reads beside."""
    left_out = scratch / "left_out.txt"
    left_out.write_text("".join(f"{name} ; sys_platform == 'never'\n" for name in lock.leave_out))
    # Metadata that only a build tells is the same from this Python: another one is not worth a download.
    words = [str(lock.source), "--generate-hashes", "--no-annotate", "--quiet", "--no-python-downloads"]
    words += ["--custom-compile-command", f"btrm container lock {lock.name}"]  # else the paths of this machine
    words += ["--python-version", lock.python, "--python-platform", PLATFORM, "--override", str(left_out)]
    if lock.exclude_newer:
        words += ["--exclude-newer", lock.exclude_newer]
    for name, date in lock.exclude_newer_package.items():
        words += ["--exclude-newer-package", f"{name}={date}"]
    if lock.torch_index:
        words.append(str(_torch_from(lock.torch_index, scratch)))
    if lock.beside:
        words += ["--constraints", str(get_lock(lock.beside).path)]
    return words


def _torch_from(index: str, scratch: Path) -> Path:
    """Write one more short list: torch, and nothing else, is to be had from this index.

    The index has files of many names. Were it asked for them, too, whoever can put one there could put it into a lock.
    """
    path = scratch / "pyproject.toml"
    path.write_text(f"""\
[project]
name = "torch-from"
version = "0"
dependencies = ["torch"]

[tool.uv.sources]
torch = {{ index = "torch" }}

[[tool.uv.index]]
name = "torch"
url = "{index}"
explicit = true
""")
    return path
