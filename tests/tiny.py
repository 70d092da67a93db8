"""A real image of a megabyte, made without a network: busybox, and a record like that of btrm's own images."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from btrm.container.image_facts import LABELS
from btrm.container.run_build import record_path
from btrm.container.variants import get_lock
from btrm.launch.snapshot import code_digest
from btrm.publishing import write_json
from btrm.runs import sha256_file
from btrm.train.swift_series import SERIES

BUSYBOX = Path("/bin/busybox")
_APPLETS = ("sh", "cat", "env")


def own_record(**changed: Any) -> dict[str, Any]:
    """What an image of the cpu variant would say of itself, if it were built now."""
    said = {
        "variant": "cpu",
        "version": "0.1.0",
        "python": "3.11",
        "lock_sha256": sha256_file(get_lock("cpu").path),
        "left_out": [],
        "patches_sha256": SERIES,
        "base": "sha256:" + "0" * 64,
        "base_file": None,
        "driver": None,
        "git": "0" * 40,
        "code": code_digest(),
        "built": "2030-01-01T00:00:00Z",
    }
    return said | changed


def build(folder: Path, record: Mapping[str, Any], **labels: str) -> Path:
    """Build the image in a folder that others can read; `labels` are said in the place of the record's."""
    folder.mkdir(mode=0o755)
    shutil.copyfile(BUSYBOX, folder / "busybox")
    (folder / "busybox").chmod(0o755)
    (folder / "image.json").write_text(json.dumps(record))
    (folder / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (folder / "group").write_text("root:x:0:\n")
    files = [f"{folder}/busybox /bin/{name}" for name in _APPLETS]
    files += [f"{folder}/image.json /opt/btrm/image.json", f"{folder}/passwd /etc/passwd", f"{folder}/group /etc/group"]
    told = {label: labels.get(field, str(record.get(field))) for label, field in LABELS.items()}
    sections = {"files": files, "labels": [f"{label} {value}" for label, value in told.items()]}
    text = "".join(f"\n%{name}\n" + "".join(f"    {line}\n" for line in lines) for name, lines in sections.items())
    (folder / "tiny.def").write_text(f"Bootstrap: scratch\n{text}")
    image = folder / "tiny.sif"
    words = ["apptainer", "build", "--mksquashfs-args", "-no-compression", str(image), str(folder / "tiny.def")]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    write_json(record_path(image), {**record, "sha256": sha256_file(image), "command": "btrm container build"})
    return image


def copy(image: Path, folder: Path) -> Path:
    """Return a copy of an image and of its record, to do with as one likes."""
    target = folder / image.name
    shutil.copyfile(image, target)
    shutil.copyfile(record_path(image), record_path(target))
    return target


def flip(path: Path, at: int) -> None:
    """Change one byte of a file, its size and its inode as they were."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
