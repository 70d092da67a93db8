"""`btrm container squash`: an image's file system by itself, as enroot and pyxis take it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from btrm.checks import Check
from btrm.config import ConfigError
from btrm.container.apptainer import ask, complaint, need_apptainer
from btrm.container.image_facts import build_record
from btrm.container.run_build import publish, record_path
from btrm.publishing import write_json
from btrm.runs import StageError, sha256_file

_SYSTEM = "FS (Squashfs/*System/"


def default_target(image: Path) -> Path:
    """Return the name that an image's file system has beside it; of a version's dots, v1.2, none is a suffix."""
    return image.with_name(f"{image.name.removesuffix('.sif')}.sqsh")


def squash(image: Path, target: Path, *, replacing: bool = False) -> str:
    """Write an image's root file system as a squashfs file, with a record beside it; return the file's sha256.

    Raises ConfigError for what is no image with one, or where something has the name (unless `replacing`), and
    StageError where apptainer cannot read it.
    """
    _need_free(target, image, replacing=replacing)
    number, sif, record = _partition(image), sha256_file(image), build_record(image) or {}
    if record.get("sha256", sif) != sif:
        raise ConfigError(f"{image}: its sha256 is {sif}, its record says {record['sha256']}: not what was built")
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    with scratch.open("wb") as file:
        words = [need_apptainer(), "sif", "dump", number, str(image)]
        done = subprocess.run(words, stdout=file, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        scratch.unlink()
        raise StageError(f"{image}: {complaint(done.stderr)}")
    digest = sha256_file(scratch)
    write_json(record_path(target), {**record, "sha256": digest, "sif_sha256": sif})
    publish(scratch, target)
    return digest


def _need_free(target: Path, image: Path, *, replacing: bool) -> None:
    if target.is_dir() or target.resolve() == image.resolve():
        raise ConfigError(f"{target}: {'a folder' if target.is_dir() else 'the image itself'}; take another name")
    if target.exists() and not replacing:
        raise ConfigError(f"{target}: there already; --force replaces it, or take another name")


def squashed_from(squashed: Path) -> Iterator[Check]:
    """Yield whether a squashed file system is that of the image beside it, by the sha256 that its record has of it."""
    record = build_record(squashed) or {}
    sif = squashed.with_name(f"{squashed.name.removesuffix('.sqsh')}.sif")
    if "sif_sha256" not in record:
        yield Check("WARN", "no record of which .sif it was squashed from", "btrm container squash writes it")
    elif not sif.is_file():
        fix = f"btrm container verify IMAGE.sif --sha256 {record['sif_sha256']}, where that is"
        yield Check("WARN", f"squashed from a .sif of sha256 {record['sif_sha256']} (its record's word)", fix)
    elif (found := sha256_file(sif)) == record["sif_sha256"] or _unsigned(sif, found) in _names(record):
        yield Check("OK", f"squashed from {sif}, sha256 {record['sif_sha256']}")
    else:
        what = f"squashed from a .sif of sha256 {record['sif_sha256']}; {sif} has {found}: another, or a changed one"
        yield Check("FAIL", what, f"btrm container squash --force {sif}")


def _unsigned(sif: Path, found: str) -> str | None:
    """Return what a .sif was before it was signed, where its record is of what it is now."""
    record = build_record(sif) or {}
    return record.get("unsigned_sha256") if record.get("sha256") == found else None


def _names(record: Mapping[str, str]) -> set[str | None]:
    return {record["sif_sha256"], record.get("unsigned_sha256", record["sif_sha256"])}


def _partition(image: Path) -> str:
    """Return the number of the object in a SIF that holds the system."""
    listed = ask("sif", "list", str(image))
    lines = [line.split("|") for line in listed.stdout.splitlines() if _SYSTEM in line]
    if len(lines) != 1:
        raise ConfigError(f"{image}: no SIF with one squashfs in it {listed.stderr.strip()}".strip())
    return lines[0][0].strip()
