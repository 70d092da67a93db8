"""What an image says of itself, in /opt/btrm/image.json; its labels say the same."""

from __future__ import annotations

from dataclasses import dataclass

from btrm.container.variants import Image
from btrm.runs import now, sha256_file
from btrm.train.swift_series import SERIES


@dataclass(frozen=True, slots=True)
class Own:
    """What is btrm's own in an image. `code` names its files, `git` the commit where one is known."""

    version: str
    code: str
    git: str | None


def record(image: Image, own: Own, base: str, base_file: str | None = None) -> dict[str, object]:
    """Return the record. `base` is a registry's digest, or that of the file; `base_file` a prepared base's own."""
    lock = image.packages
    return {
        "variant": image.name,
        "version": own.version,
        "python": lock.python,
        "lock_sha256": sha256_file(lock.path),
        "left_out": list(lock.leave_out),
        "patches_sha256": SERIES,
        "base": base,
        "base_file": base_file,
        "driver": image.driver,
        "git": own.git,
        "code": own.code,
        "built": now(),
    }
