"""What of NVIDIA a machine or an image has: its driver, its devices, its library, the CUDA of torch. Python alone."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from btrm.operate.doctor_image_trial import attempt

_TIMEOUT_S = 30


def driver() -> str:
    """Return the line in which nvidia-smi, or else the kernel, names the driver's version; '' where there is none."""
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    asked = attempt(words, _TIMEOUT_S)
    if asked.code == 0 and asked.said.strip():
        return asked.said.strip().splitlines()[0]
    try:
        return Path("/proc/driver/nvidia/version").read_text().splitlines()[0]
    except (OSError, IndexError):
        return ""


def devices() -> int:
    """Return how many GPUs have a device file."""
    return len([path for path in Path("/dev").iterdir() if re.fullmatch(r"nvidia\d+", path.name)])


def loads(library: str) -> str:
    """Return '' where a library can be loaded, else why not."""
    try:
        import ctypes  # an image without libffi has none

        ctypes.CDLL(library)
    except (OSError, ImportError) as error:
        return str(error)
    return ""


def torch_cuda() -> str:
    """Return the CUDA that torch was built for, '' for none, from the text of its version.py."""
    try:
        found = importlib.util.find_spec("torch")
        text = (Path(found.origin).parent / "version.py").read_text() if found and found.origin else ""
    except (OSError, ImportError, ValueError):
        return ""
    said = re.search(r"^cuda\b[^=\n]*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return said[1] if said else ""
