"""What surrounds a Python process on a machine or in an image: variables, libraries, the driver, room.

Like all that runs in `doctor_node`, it needs Python alone: nothing is imported to be looked at.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import site
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import btrm
from btrm.launch.inside import REQUIRES, missing_packages

RECORD = Path("/opt/btrm/image.json")
# What a variable that names a cache is where it is not set, by the packages' own rules.
CACHES = {
    "HOME": "~",
    "XDG_CACHE_HOME": "~/.cache",
    "HF_HOME": "$XDG_CACHE_HOME/huggingface",
    "MODELSCOPE_CACHE": "~/.cache/modelscope",
    "TRITON_CACHE_DIR": "~/.triton/cache",
    "TORCHINDUCTOR_CACHE_DIR": "/tmp/torchinductor_$USER",
    "VLLM_CACHE_ROOT": "$XDG_CACHE_HOME/vllm",
}
ROOM = ("/tmp", "/dev/shm")
# Variables that steer Python, the loader, compilers and certificates; none of them holds a secret.
_NAMED = ("TMPDIR", "VIRTUAL_ENV", "LD_PRELOAD", "LD_LIBRARY_PATH", "CC", "CXX", "CUDA_HOME", "CUDA_PATH")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
NAMES = (*_NAMED, *_CERTIFICATES, *CACHES, "PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "CONDA_PREFIX")
_SAID = 2000  # characters of a command's first and last words that are kept
_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class Trial:
    """A command that was tried: its exit status, how long it took and what it said."""

    code: int
    seconds: float
    said: str


@dataclass(frozen=True, slots=True)
class Around:
    """The surroundings. Texts are '' where there is nothing; `libcuda` is why it cannot be loaded, '' where it can.

    `gone` are the entries of a variable that are not there; `sizes_gb` the size of a file system, not its free space;
    `record` what the image says of itself; `unfit` what btrm needs and it has not; `namespaces` what the kernel
    forbids, '' where nothing.
    """

    variables: dict[str, str] = field(default_factory=dict[str, str])
    gone: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    sys_path: list[str] = field(default_factory=list[str])
    prefixes: list[str] = field(default_factory=list[str])
    user_site: str = ""
    driver: str = ""
    devices: int = 0
    libcuda: str = ""
    cuda: str = ""
    sizes_gb: dict[str, float] = field(default_factory=dict[str, float])
    record: dict[str, Any] = field(default_factory=dict[str, Any])
    unfit: list[str] = field(default_factory=list[str])
    fuse: bool = False
    namespaces: str = ""


def look_around() -> Around:
    """Look at everything; nothing here raises for what is missing."""
    variables = {name: os.environ[name] for name in NAMES if os.environ.get(name)}
    return Around(
        variables=variables,
        gone={name: gone for name, text in variables.items() if name not in CACHES and (gone := _gone(text))},
        sys_path=[entry for entry in sys.path if Path(entry).exists()],
        prefixes=sorted({sys.prefix, sys.base_prefix, str(Path(os.__file__).parent)}),
        user_site=site.getusersitepackages() if site.ENABLE_USER_SITE else "",
        driver=_driver(),
        devices=len([path for path in Path("/dev").iterdir() if re.fullmatch(r"nvidia\d+", path.name)]),
        libcuda=_loads("libcuda.so.1"),
        cuda=torch_cuda(),
        sizes_gb={place: _size_gb(place) for place in ROOM if Path(place).is_dir()},
        record=_record(),
        unfit=_unfit(),
        fuse=os.access("/dev/fuse", os.R_OK | os.W_OK),
        namespaces=_namespaces(),
    )


def cache_folder(name: str, environ: Mapping[str, str]) -> str:
    """Return the folder that a cache's variable names, or what its packages take where it is not set."""
    given = environ.get(name)
    if given:
        return given
    text = CACHES[name]
    if "$XDG_CACHE_HOME" in text:
        text = text.replace("$XDG_CACHE_HOME", cache_folder("XDG_CACHE_HOME", environ))
    return text.replace("$USER", environ.get("USER", "user"))


def identity(path: str) -> str:
    """Return what names a folder wherever it is bound to: its device and inode; '' where it is not there."""
    try:
        found = Path(os.path.expandvars(path)).expanduser().stat()
    except OSError:
        return ""
    return f"{found.st_dev}:{found.st_ino}"


def file_line(path: str) -> str:
    """Return inode, bytes and time of change of a file that can be read, else why it cannot."""
    try:
        found = Path(path).expanduser().stat()
    except OSError as error:
        return error.strerror or str(error)
    if not os.access(Path(path).expanduser(), os.R_OK):
        return "not readable"
    return f"{found.st_ino} {found.st_size} {int(found.st_mtime)}"


def attempt(words: Sequence[str], timeout_s: float) -> Trial:
    """Run a command and keep what it says."""
    started = time.monotonic()
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
        code, said = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired:
        code, said = 124, f"no answer in {timeout_s:.0f} s"
    except OSError as error:
        code, said = 127, f"{words[0]}: {error.strerror}"
    return Trial(
        code, time.monotonic() - started, said if len(said) < 2 * _SAID else f"{said[:_SAID]}\n…\n{said[-_SAID:]}"
    )


def torch_cuda() -> str:
    """Return the CUDA that torch was built for, '' for none, from the text of its version.py."""
    try:
        found = importlib.util.find_spec("torch")
        text = (Path(found.origin).parent / "version.py").read_text() if found and found.origin else ""
    except (OSError, ImportError, ValueError):
        return ""
    said = re.search(r"^cuda\b[^=\n]*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return said[1] if said else ""


def _gone(text: str) -> list[str]:
    """Return the paths in a variable's value that are not there; words that are no paths are left alone."""
    return [entry for entry in re.split(r"[: ]", text) if entry.startswith("/") and not Path(entry).exists()]


def _driver() -> str:
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    asked = attempt(words, _TIMEOUT_S)
    if asked.code == 0 and asked.said.strip():
        return asked.said.strip().splitlines()[0]
    try:
        return Path("/proc/driver/nvidia/version").read_text().splitlines()[0]
    except (OSError, IndexError):
        return ""


def _loads(library: str) -> str:
    try:
        import ctypes  # an image without libffi has none

        ctypes.CDLL(library)
    except (OSError, ImportError) as error:
        return str(error)
    return ""


def _size_gb(place: str) -> float:
    found = os.statvfs(place)
    return found.f_blocks * found.f_frsize / 1e9


def _record() -> dict[str, Any]:
    try:
        return json.loads(RECORD.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        return {"problem": str(error)}


def _unfit() -> list[str]:
    """Return what this Python lacks of what btrm needs; nothing where the code does not come with a list of it."""
    listed = Path(btrm.__file__).parent.parent / REQUIRES
    return missing_packages(listed.read_text().splitlines()) if listed.is_file() else []


def _namespaces() -> str:
    """Return which switch of the kernel keeps users from namespaces of their own."""
    forbidding = {
        "user/max_user_namespaces": "0",
        "kernel/unprivileged_userns_clone": "0",
        "kernel/apparmor_restrict_unprivileged_userns": "1",
    }
    for name, value in forbidding.items():
        try:
            said = Path("/proc/sys", name).read_text().strip()
        except OSError:
            continue
        if said == value:
            return f"{name.replace('/', '.')} = {said}"
    return ""
