"""What an image stands on: a registry's image by digest, a file by its sha256, or a Debian made for it."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from btrm.config import ConfigError
from btrm.container.run_build import PACKED, build_args, built, publish, record_path
from btrm.container.variants import Image
from btrm.plugins import shipped
from btrm.publishing import write_json
from btrm.runs import sha256_file


@dataclass(frozen=True, slots=True)
class Base:
    """What both stages stand on, as apptainer is told it, and what names it for good.

    `origin` is the digest of the registry's image that a prepared base was made from; else it is the base's own.
    """

    bootstrap: str
    source: str
    digest: str
    origin: str


def named_base(base: str) -> Base:
    """Return a base by its name: FILE, FILE@sha256:… (checked) or a registry's NAME@sha256:…; raise ConfigError."""
    name, _, digest = base.partition("@sha256:")
    path = Path(name).expanduser()
    if not path.exists():
        if not digest:
            raise ConfigError(f"--base {base}: neither a file nor a registry's reference by digest, NAME@sha256:…")
        return Base("docker", base.removeprefix("docker://"), f"sha256:{digest}", f"sha256:{digest}")
    if path.is_dir():
        raise ConfigError(f"--base {base}: a folder has no digest; take an image file")
    found = sha256_file(path)
    if digest and found != digest:
        raise ConfigError(f"--base {name}: its sha256 is {found}, not {digest}")
    told = _record(path)
    origin = told["base"] if told.get("sha256") == found and told.get("base") else f"sha256:{found}"
    return Base("localimage", str(path.resolve()), f"sha256:{found}", origin)


def _record(base: Path) -> dict[str, str]:
    path = record_path(base)
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON: {error}") from None


def build_base(image: Image, target: Path, mirror: str | None = None, own: Sequence[str] = ()) -> Path:
    """Build what a variant stands on, with the system packages in it: a build on it needs no network.

    `own` are words for apptainer. Raises as `build` does.
    """
    if mirror and "@" in mirror:
        raise ConfigError("--mirror: an address with a name or a password in it would stay in the image")
    with tempfile.TemporaryDirectory(prefix="btrm-build-") as name:
        context = Path(name)
        context.chmod(0o755)
        shutil.copyfile(shipped("containers") / "system.sh", context / "system.sh")
        (context / "base.def").write_text(base_definition(image))
        known = {"context": ".", "python": f"python{image.packages.python}"}
        known |= {"base": image.base} if image.base else {}
        known |= {"mirror": mirror} if mirror and image.bootstrap == "debootstrap" else {}
        made = built([*PACKED, *own, *build_args(known)], target, context / "base.def")
        origin = {"base": image.base.partition("@")[2]} if image.base else {}
        write_json(record_path(target), {"sha256": sha256_file(made), **origin})
        return publish(made, target)


def base_key(image: Image) -> str:
    """Return what names a base that is built here: its definition, and the script that installs its packages."""
    texts = base_definition(image) + (shipped("containers") / "system.sh").read_text()
    return hashlib.sha256(texts.encode()).hexdigest()[:16]


def base_definition(image: Image) -> str:
    """Return the definition of a variant's base: Debian as it is shipped, or the variant's own image by digest."""
    text = (shipped("containers") / "base.def").read_text()
    _, found, body = text.partition("\n%help")
    assert found, "base.def has no %help"
    header = "Bootstrap: docker\nFrom: {{ base }}\n"
    own = body.replace("    mirror=http://deb.debian.org/debian\n", "    base=\n")
    return text if image.bootstrap == "debootstrap" else f"{header}{found}{own}"
