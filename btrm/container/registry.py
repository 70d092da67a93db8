"""`btrm container push` and `pull`: an image in a registry, by ORAS, and back again as the very same file.

The registry's layer is the file itself, so the sha256 that runs are recorded with is also what it is found by. Of a tag
nobody can say what it means tomorrow; a pull is held against a digest, or the sha256 of the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import urllib.request
from pathlib import Path
from typing import Any

from btrm.config import ConfigError
from btrm.container.apptainer import do
from btrm.container.image_facts import build_record, own_record
from btrm.container.run_build import record_path
from btrm.publishing import replace, write_json
from btrm.runs import StageError, sha256_file

_REFERENCE = re.compile(r"oras://(?P<host>[^/@]+)/(?P<name>[a-z0-9._/-]+)(:(?P<tag>[\w.-]+))?(@sha256:[0-9a-f]{64})?")
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_ANSWER_S = 20.0


def push(image: Path, reference: str, *, http: bool) -> dict[str, Any]:
    """Send an image to a registry; return {"reference", "sha256", "digest"}, which its record keeps too.

    `digest` is the registry's, None where it tells it only after a login. Raises ConfigError for what is not as its
    record says, StageError where the registry refuses or holds something else afterwards.
    """
    parts = _parsed(reference)
    if parts["tag"] is None or "@" in reference:
        raise ConfigError(f"{reference}: push takes oras://HOST/NAME:TAG; the digest is the registry's answer")
    if not image.is_file():
        raise ConfigError(f"{image}: {'a sandbox cannot be pushed' if image.is_dir() else 'no such file'}")
    found, record = sha256_file(image), build_record(image) or {}
    image = image.resolve()  # its record lies beside it, and not beside a link
    if record.get("sha256", found) != found:
        raise ConfigError(f"{image}: its sha256 is {found}, its record says {record['sha256']}: btrm container verify")
    do("push", *_http(http), str(image), reference)
    pushed = {"reference": reference, "sha256": found, "digest": _held(parts, found, http=http)}
    others = [known for known in record.get("pushed", []) if known["reference"] != reference]
    write_json(record_path(image), {**record, "sha256": found, "pushed": [*others, pushed]})
    return pushed


def pull(reference: str, target: Path, *, sha256: str | None, replacing: bool, http: bool) -> str:
    """Bring an image from a registry; return its sha256. It is there whole, with its record, or not at all.

    Raises ConfigError where another file is in its place (unless `replacing`), StageError for what is not the file that
    `sha256` or the reference's digest names.
    """
    _parsed(reference)
    if target.is_dir():
        raise ConfigError(f"{target}: a folder; name the image's file")
    if target.exists() and not replacing:
        raise ConfigError(f"{target}: there already; --force replaces it, or take another name")
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Apptainer hands out what its cache holds without looking at it again, and would keep a second copy there.
        do("pull", "--disable-cache", *_http(http), str(scratch), reference)
        found = sha256_file(scratch)
        if sha256 is not None and found != sha256.lower():
            raise StageError(f"{reference}: the file's sha256 is {found}, not {sha256}: nothing was kept")
        record = {**(own_record(scratch) or {}), "sha256": found, "pulled": reference}
        record_path(target).unlink(missing_ok=True)  # what is there now must never stand beside the old one
        replace(scratch, target)
        write_json(record_path(target), record)
    finally:
        scratch.unlink(missing_ok=True)
    return found


def _parsed(reference: str) -> dict[str, str | None]:
    """Return a reference's host, name and tag; raise ConfigError for what is none, or holds a password."""
    found = _REFERENCE.fullmatch(reference)
    if found is None and re.match(r"\w+://[^/]*@", reference):
        raise ConfigError("a reference holds no user and password: apptainer registry login keeps them")
    if found is None:
        raise ConfigError(f"{reference}: expected oras://HOST/NAME:TAG or oras://HOST/NAME@sha256:…")
    return found.groupdict()


def _http(http: bool) -> list[str]:
    return ["--no-https"] if http else []


def _held(parts: dict[str, str | None], sha256: str, *, http: bool) -> str | None:
    """Return the digest under which a registry holds the file; None where it does not tell without a login."""
    scheme = "http" if http else "https"
    url = f"{scheme}://{parts['host']}/v2/{parts['name']}/manifests/{parts['tag']}"
    request = urllib.request.Request(url, headers={"Accept": _MANIFEST})
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER_S) as answer:
            manifest: bytes = answer.read()
    except OSError:  # a login, a proxy: what was pushed is there all the same
        return None
    layers = [layer["digest"] for layer in json.loads(manifest)["layers"]]
    if layers != [f"sha256:{sha256}"]:
        raise StageError(f"{url}: holds {', '.join(layers)}, not sha256:{sha256}: another push came in between")
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"
