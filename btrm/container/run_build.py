"""One run of `apptainer build`: its arguments, its log, and an image that is there whole or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from btrm.container.apptainer import need_apptainer
from btrm.runs import StageError

# A tenth of the default's (gzip -9) time to write, quicker to read, and hardly larger.
PACKED = ("--mksquashfs-args", "-comp zstd -Xcompression-level 3")
_LOG_LINES = 40


def build_args(arguments: Mapping[str, str]) -> list[str]:
    """Return what fills a definition's {{ }}."""
    return [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]


def built(words: Sequence[str], target: Path, definition: Path) -> Path:
    """Build under a scratch name beside the target and return that; raise StageError with the end of the log.

    The log stays beside the image.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    log = target.with_name(f"{target.name}.log")
    say(f"building {target}; what apptainer says of it: {log}")
    with log.open("w") as file:
        command = [need_apptainer(), "build", *words, str(scratch), str(definition)]
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        remove(scratch)
        told = "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
        raise StageError(f"apptainer build {target.name} failed ({code}):\n{told}")
    return scratch


def publish(scratch: Path, target: Path) -> Path:
    """Give an image its name, in the place of what had it."""
    if target.is_dir():
        remove(target)
    return scratch.replace(target)


def remove(path: Path) -> None:
    """Take away an image, a file or a sandbox folder, where there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def say(text: str) -> None:
    """Tell people how far a build is."""
    print(f"btrm: {text}", file=sys.stderr, flush=True)
