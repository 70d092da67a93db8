"""What an image says of itself: its labels, the record that lies in it, and the record of its build beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from btrm.config import ConfigError
from btrm.container.apptainer import ask, complaint
from btrm.container.run_build import record_path

INSIDE = "/opt/btrm/image.json"
# A label, and the field of the record in the image that says the same.
LABELS = {
    "org.btrm.variant": "variant",
    "org.btrm.version": "version",
    "org.btrm.revision": "git",
    "org.btrm.code": "code",
    "org.btrm.lock.sha256": "lock_sha256",
    "org.btrm.patches.sha256": "patches_sha256",
    "org.btrm.base": "base",
    "org.btrm.driver": "driver",
}


@dataclass(frozen=True, slots=True)
class Signatures:
    """Who has signed an image. `problem` says what is wrong with what is signed; '' where all of it is as it was."""

    count: int
    signers: frozenset[str]
    problem: str


def labels(image: Path) -> dict[str, str]:
    """Return an image's labels; raise ConfigError where the file is no image."""
    done = ask("inspect", "--json", str(image))
    if done.returncode:
        raise ConfigError(f"{image}: {complaint(done.stderr)}")
    return json.loads(done.stdout)["data"]["attributes"]["labels"] or {}


def own_record(image: Path) -> dict[str, Any] | None:
    """Return the record that lies in an image; None where it has none.

    The image's own `cat` reads it, which sees nothing of this machine: no home, no variable, no other folder.
    """
    done = ask("-q", "exec", "--containall", "--no-home", str(image), "cat", INSIDE)
    try:
        found: object = json.loads(done.stdout)
    except ValueError:
        return None
    return cast(dict[str, Any], found) if isinstance(found, dict) and not done.returncode else None


def build_record_path(image: Path) -> Path:
    """Return where an image's record lies: beside the file itself, else beside the link that leads to it."""
    beside = record_path(image.resolve())
    return beside if beside.exists() else record_path(image)


def build_record(image: Path) -> dict[str, Any] | None:
    """Return what was written beside an image when it was built, signed, pushed or pulled; None where nothing was."""
    path = build_record_path(image)
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON: {error}") from None


def signatures(image: Path) -> Signatures:
    """Return an image's signatures, as the keys of the user's own keyring see them; no key server is asked."""
    done = ask("verify", "--local", "--json", str(image))
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        return Signatures(0, frozenset(), complaint(done.stderr))
    signers = frozenset(str(key["Signer"]["Fingerprint"]).upper() for key in found["SignerKeys"] or ())
    return Signatures(found["Signatures"], signers, complaint(done.stderr) if done.returncode else "")


def is_squashfs(image: Path) -> bool:
    """Return whether a file is a file system by itself, as `squash` writes it, and no SIF."""
    if not image.is_file():
        return False
    with image.open("rb") as file:
        return file.read(4) == b"hsqs"


def as_text(record: Mapping[str, Any], field: str) -> str:
    """Return a field of a record as a label gives it: every value is text there."""
    return str(record.get(field))
