"""`btrm container squash`: an image's file system by itself, as enroot and pyxis take it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from btrm.config import ConfigError
from btrm.container.apptainer import ask, complaint, need_apptainer
from btrm.container.image_facts import build_record
from btrm.container.run_build import publish, record_path
from btrm.runs import StageError, sha256_file, write_json

_SYSTEM = "FS (Squashfs/*System/"


def default_target(image: Path) -> Path:
    """Return the name that an image's file system has beside it; of a version's dots, v1.2, none is a suffix."""
    return image.with_name(f"{image.name.removesuffix('.sif')}.sqsh")


def squash(image: Path, target: Path, *, replacing: bool = False) -> str:
    """Write an image's root file system as a squashfs file, with a record beside it; return the file's sha256.

    Raises ConfigError for what is no image with one, or where something has the name (unless `replacing`), and
    StageError where apptainer cannot read it.
    """
    if target.is_dir() or target.resolve() == image.resolve():
        raise ConfigError(f"{target}: {'a folder' if target.is_dir() else 'the image itself'}; take another name")
    if target.exists() and not replacing:
        raise ConfigError(f"{target}: there already; --force replaces it, or take another name")
    number, scratch = _partition(image), target.with_name(f".{target.name}.{os.getpid()}")
    with scratch.open("wb") as file:
        words = [need_apptainer(), "sif", "dump", number, str(image)]
        done = subprocess.run(words, stdout=file, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        scratch.unlink()
        raise StageError(f"{image}: {complaint(done.stderr)}")
    digest = sha256_file(scratch)
    record = build_record(image) or {}
    write_json(record_path(target), {**record, "sha256": digest, "sif_sha256": sha256_file(image)})
    publish(scratch, target)
    return digest


def _partition(image: Path) -> str:
    """Return the number of the object in a SIF that holds the system."""
    listed = ask("sif", "list", str(image))
    lines = [line.split("|") for line in listed.stdout.splitlines() if _SYSTEM in line]
    if len(lines) != 1:
        raise ConfigError(f"{image}: no SIF with one squashfs in it {listed.stderr.strip()}".strip())
    return lines[0][0].strip()
