"""What names an image: the sha256 of its file, hashed once and remembered by inode, size and time of change."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from btrm.config import ConfigError
from btrm.publishing import write_json
from btrm.runs import sha256_file, user_cache

IMAGE_RECORD = Path("/opt/btrm/image.json")  # written by the image's build
STAT = "%i %s %.9Y %.9Z"  # stat's --format: inode, bytes, time of change, and when that time itself was last set
DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


def image_digest(image: str) -> str | None:
    """Return the hex sha256 of an image's file, or the digest that a registry's reference ends in.

    None for what has no digest: a sandbox folder, a reference by tag. Raises ConfigError where there is no such file.
    """
    if "://" in image or "#" in image:
        found = DIGEST.search(image)
        return found[1] if found else None
    path = Path(image).expanduser()
    if path.is_dir():
        return None
    if not path.is_file():
        raise ConfigError(f"image {image}: no such file")
    return _remembered(path.resolve())


def image_record() -> dict[str, Any]:
    """Return what the image that this process runs in says of itself; nothing outside of one of ours."""
    try:
        return json.loads(IMAGE_RECORD.read_text())
    except (OSError, ValueError):
        return {}


def inside_image(environ: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return (image, digest of its code) of this process where no launcher named them; None for what is not known.

    The path is Apptainer's word; elsewhere one of our images goes by its variant and its lock. The code is the image's
    where no other stands in for it. Neither tells the sha256 of the image.
    """
    record = image_record()
    named = f"btrm {record.get('variant')} (lock {record.get('lock_sha256')})" if record else None
    own = Path(__file__).is_relative_to(IMAGE_RECORD.parent)
    return environ.get("APPTAINER_CONTAINER") or named, record.get("code") if own else None


def image_stat(path: Path) -> str:
    """Return what changes with a file's content, as `stat -L` prints it by the format STAT."""
    found = path.stat()
    times = (f"{ns // 10**9}.{ns % 10**9:09d}" for ns in (found.st_mtime_ns, found.st_ctime_ns))
    return f"{found.st_ino} {found.st_size} {' '.join(times)}"


def _remembered(path: Path) -> str:
    found = path.stat()
    key = f"{found.st_dev}-{found.st_ino}-{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}"
    memory = user_cache() / "images" / f"{key}.json"
    try:
        return json.loads(memory.read_text())["sha256"]
    except (OSError, ValueError, KeyError):
        digest = sha256_file(path)
    with contextlib.suppress(OSError):  # a full or read-only home costs the time to hash again
        write_json(memory, {"path": str(path), "sha256": digest})
    return digest
