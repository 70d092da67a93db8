"""One run of `apptainer build`: its arguments, its log, and an image that is there whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from btrm.container.apptainer import need_apptainer
from btrm.publishing import write_json
from btrm.runs import StageError, sha256_file

# A tenth of the default's (gzip -9) time to write, quicker to read, and hardly larger.
PACKED = ("--mksquashfs-args", "-comp zstd -Xcompression-level 3")
_LOG_LINES = 40


def build_args(arguments: Mapping[str, str]) -> list[str]:
    """Return what fills a definition's {{ }}."""
    return [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]


def built(words: Sequence[str], target: Path, definition: Path) -> Path:
    """Build under a scratch name beside the target and return that; raise StageError with the end of the log.

    Paths in the definition are those of its own folder. The log stays beside the image.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch, log = (
        target.absolute().with_name(name) for name in (f".{target.name}.{os.getpid()}", f"{target.name}.log")
    )
    say(f"building {target}; what apptainer says of it: {log}")
    try:
        _run([need_apptainer(), "build", *words, str(scratch), definition.name], definition.parent, log)
    except BaseException:
        remove(scratch)
        raise
    return scratch


def _run(command: Sequence[str], folder: Path, log: Path) -> None:
    with log.open("w") as file:
        code = subprocess.run(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        told = "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
        raise StageError(f"apptainer build failed ({code}), {log}:\n{told}")


def keep(scratch: Path, target: Path) -> Path:
    """Publish what later builds may take, with its sha256 beside it."""
    write_json(record_path(target), {"sha256": sha256_file(scratch)})
    return publish(scratch, target)


def kept(target: Path) -> bool:
    """Say whether what an earlier build kept is there, byte for byte."""
    path = record_path(target)
    return target.is_file() and path.is_file() and json.loads(path.read_text())["sha256"] == sha256_file(target)


def record_path(image: Path) -> Path:
    """Return where the record of a build lies: beside the image."""
    return image.with_name(f"{image.name}.json")


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
