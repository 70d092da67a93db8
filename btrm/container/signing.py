"""`btrm container sign`: apptainer's own signature in the image, and the record beside it kept true."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from btrm.config import ConfigError
from btrm.container.apptainer import do
from btrm.container.image_facts import build_record, is_squashfs
from btrm.container.run_build import record_path
from btrm.publishing import replace, write_json
from btrm.runs import sha256_file


def sign(image: Path, words: Sequence[str] = ()) -> str:
    """Sign an image; return its new sha256. `words` are apptainer's own, as --keyidx 1; it asks for the passphrase.

    A signature is written into the file, so its sha256 changes: the record keeps the old one as `unsigned_sha256`. A
    copy is signed and takes the image's place by one rename, so that jobs which have it mounted go on undisturbed.
    What a link leads to is signed. Raises ConfigError for what is no longer what was built, and StageError where
    apptainer refuses.
    """
    before, record = _as_recorded(image)
    image = image.resolve()
    scratch = image.with_name(f".{image.name}.{os.getpid()}")
    try:
        shutil.copy2(image, scratch)
        do("sign", *words, str(scratch))
        after = sha256_file(scratch)
        unsigned = record.get("unsigned_sha256", before)
        write_json(record_path(image), {**record, "sha256": after, "unsigned_sha256": unsigned})
        replace(scratch, image)
    finally:
        scratch.unlink(missing_ok=True)
    return after


def _as_recorded(image: Path) -> tuple[str, dict[str, object]]:
    """Return an image's sha256 and its record. After a sign that was cut short the record is ahead of the image."""
    if not image.is_file():
        raise ConfigError(f"{image}: {'a sandbox cannot be signed' if image.is_dir() else 'no such file'}")
    if is_squashfs(image):
        raise ConfigError(f"{image}: only a .sif can be signed; sign the one that this was squashed from")
    found, record = sha256_file(image), build_record(image) or {}
    known = {record.get("sha256", found), record.get("unsigned_sha256")}
    if found not in known:
        raise ConfigError(f"{image}: its sha256 is {found}, its record says {record['sha256']}: not what was built")
    return found, record
