"""Runs on disk: who lies where, what is complete, and with which settings.

A stage works in its final directory. `stage.json` says what was asked for and is written first; `manifest.json` says
what was done and is written last, by rename: no manifest, not complete.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from btrm.config import Config, ConfigError
from btrm.publishing import read_json

MANIFEST = "manifest.json"
REQUEST = "stage.json"
JOB_IDS = "BTRM_JOB_IDS"  # all jobs that have worked on a stage, set by the job that commits it
# Set by a job's script: the site's image, its sha256 and the digest of the code's copy.
IMAGE, IMAGE_SHA256, CODE = "BTRM_IMAGE", "BTRM_IMAGE_SHA256", "BTRM_CODE"


class Resources(Config):
    """What a job asks for. `gpus` is per node."""

    nodes: int = 1
    gpus: int = 0
    cpus: int = 2
    mem_gb: int = 8
    time_min: int = 60


class StageConfig(Config):
    """Base of the stages' configurations."""

    def named_texts(self) -> dict[str, str]:
        """Return {name: text} of what settings name and btrm ships: another text is another run."""
        return {}

    def growing_texts(self) -> dict[str, str]:
        """Return {name: text} of what an extent names: another text extends a run, like another input of members."""
        return {}


class Output(Config):
    """One file that a manifest claims."""

    sha256: str
    bytes: int
    rows: int | None = None


class StageRequest(Config):
    """What was asked of a stage; the job is handed the path of this record and nothing else."""

    stage: str
    name: str
    root: str
    config: dict[str, Any]
    resources: Resources
    fingerprint: str
    inputs: dict[str, str]


class RunManifest(Config):
    """What a complete stage did, with the hash of everything it read and wrote.

    `image` and `image_sha256` are None outside of an image, `code`, the digest of the code's copy, outside of a job.
    """

    stage: str
    name: str
    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, str]
    outputs: dict[str, Output]
    results: dict[str, Any]
    resources: Resources
    git: str | None
    image: str | None
    image_sha256: str | None = None
    code: str | None = None
    packages: dict[str, str]
    host: str
    job_ids: list[str]
    started: str
    finished: str
    seconds: float
    status: Literal["complete"] = "complete"


@dataclass(frozen=True, slots=True)
class RunPaths:
    """The one place that joins paths inside a run directory."""

    root: Path

    def stage(self, name: str) -> Path:
        """Return the directory of a stage."""
        return self.root / name

    def resolve(self, reference: str) -> Path | None:
        """Return the path behind `@STAGE/rest` or a plain path; None where it is neither (a hub's name)."""
        if reference.startswith("@"):
            name, _, rest = reference[1:].partition("/")
            return self.stage(name) / rest if rest else self.stage(name)
        path = Path(reference).expanduser()
        return path if path.exists() else None

    def matches(self, reference: str) -> list[Path]:
        """Return the folders behind a reference with a glob in it, in no order; nothing where there are none."""
        path = self.resolve(reference) or Path(reference).expanduser()
        fixed = next((parent for parent in path.parents if not glob.has_magic(str(parent))), Path())
        return [found for found in fixed.glob(str(path.relative_to(fixed))) if found.is_dir()]


class StageError(RuntimeError):
    """A process that a stage started has failed; the message holds the end of its log."""


@dataclass(slots=True)
class StageResult:
    """What a stage hands back: its output files (with row counts where they have rows) and small results."""

    outputs: dict[str, int | None]
    results: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class StageRun:
    """A running stage's view of the world: where it works, what it may use, where its inputs lie.

    `staged` maps inputs to their copies on this node's own disk.
    """

    paths: RunPaths
    name: str
    dir: Path
    resources: Resources
    request: Path
    staged: Mapping[Path, Path] = field(default_factory=dict[Path, Path])

    def input(self, reference: str) -> Path:
        """Return the existing path of an input reference; raise ConfigError where there is nothing."""
        path = self.paths.resolve(reference)
        if path is None or not path.exists():
            raise ConfigError(f"{reference}: nothing there (looked at {path or reference})")
        return self.staged.get(path, path)

    def model(self, reference: str) -> str:
        """Return a model folder's path, or the reference itself where it is a hub's name."""
        path = self.paths.resolve(reference)
        return str(self.staged.get(path, path)) if path is not None else reference

    def scratch(self, name: str) -> Path:
        """Return a path of this attempt's own, beside the final one, so that publishing it is one rename."""
        path = self.dir / ".attempts" / f"{os.uname().nodename}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        path.mkdir(parents=True)
        return path / name


def user_cache() -> Path:
    """Return the user's folder for what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "btrm"


def sha256_file(path: Path) -> str:
    """Return the hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_path(path: Path) -> str:
    """Return the sha256 of a file, or of a folder's sorted (name, hash) lines."""
    if path.is_file():
        return sha256_file(path)
    lines = (f"{p.relative_to(path)} {sha256_file(p)}\n" for p in sorted(path.rglob("*")) if p.is_file())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_manifest(directory: Path) -> RunManifest | None:
    """Return a stage directory's manifest, or None where the stage is not complete."""
    found = read_json(path := directory / MANIFEST)
    return None if found is None else RunManifest.build(found, str(path))


def read_request(directory: Path) -> StageRequest | None:
    """Return what was asked of a stage directory, or None where nothing was."""
    found = read_json(path := directory / REQUEST)
    return None if found is None else StageRequest.build(found, str(path))


def fingerprint(stage: str, identity: Mapping[str, Any], lineage: Mapping[str, str]) -> str:
    """Return the digest of what makes a run this run: its settings, and where its inputs came from."""
    text = json.dumps([stage, dict(identity), dict(lineage)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def outputs_of(directory: Path, claimed: Mapping[str, int | None]) -> dict[str, Output]:
    """Hash what a stage claims to have written; folders are opened. Raises AssertionError for a missing file."""
    outputs: dict[str, Output] = {}
    for name, rows in claimed.items():
        path = directory / name
        assert path.exists(), f"{path}: claimed as an output, not written"
        for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
            relative = str(file.relative_to(directory))
            outputs[relative] = Output(sha256=sha256_file(file), bytes=file.stat().st_size, rows=rows)
    return outputs


def verify(directory: Path) -> list[str]:
    """Rehash what the manifests under a run (or of one stage) claim; return one line for each thing wrong."""
    manifests = sorted(directory.rglob(MANIFEST))
    if not manifests:
        return [f"{directory}: no {MANIFEST} here or below: nothing is complete"]
    problems: list[str] = []
    for path in manifests:
        manifest = read_manifest(path.parent)
        assert manifest is not None
        for name, output in manifest.outputs.items():
            file = path.parent / name
            if not file.exists():
                problems.append(f"{file}: missing")
            elif file.stat().st_size != output.bytes:
                problems.append(f"{file}: {file.stat().st_size} bytes, manifest says {output.bytes}")
            elif sha256_file(file) != output.sha256:
                problems.append(f"{file}: sha256 differs from the manifest")
    return problems


def clear_attempts(directory: Path) -> None:
    """Remove what dead attempts left; call it with the directory held."""
    shutil.rmtree(directory / ".attempts", ignore_errors=True)


def now() -> str:
    """Return the time in UTC, to the second, as ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
