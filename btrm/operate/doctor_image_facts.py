"""What surrounds a Python process on a machine or in an image: variables, libraries, the driver, room.

Like all that runs in `doctor_node`, it needs Python alone: nothing is imported to be looked at.
"""

from __future__ import annotations

import json
import os
import re
import site
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import btrm
from btrm.launch.inside import REQUIRES, missing_packages
from btrm.operate.doctor_image_gpu import devices, driver, loads, torch_cuda

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
        driver=driver(),
        devices=devices(),
        libcuda=loads("libcuda.so.1"),
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


def _gone(text: str) -> list[str]:
    """Return the paths in a variable's value that are not there; words that are no paths are left alone."""
    return [entry for entry in re.split(r"[: ]", text) if entry.startswith("/") and not Path(entry).exists()]


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
