"""`btrm container verify`: is this image the one that was built, from what this btrm has locked, and who says so?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from btrm.checks import Check, Level
from btrm.config import ConfigError
from btrm.container.image_facts import (
    LABELS,
    as_text,
    build_record,
    build_record_path,
    is_squashfs,
    labels,
    own_record,
    signatures,
)
from btrm.container.squash import squashed_from
from btrm.container.variants import Image, variants
from btrm.launch.snapshot import code_digest
from btrm.runs import sha256_file
from btrm.train.swift_series import SERIES

_RECORDED = (*LABELS.values(), "base_file")
_AGAIN = "build it again, or take it from where it was built"


@dataclass(frozen=True, slots=True)
class Demand:
    """What an image is held against beside its own record.

    `sha256`: {who says so: hex}. `lock`: it must stand on this btrm's own lock, patches and base. `signed`: it must be
    signed; `keys`: by each of these keys, by their fingerprints.
    """

    sha256: Mapping[str, str]
    lock: bool = False
    signed: bool = False
    keys: tuple[str, ...] = ()


def checks(image: Path, demand: Demand) -> Iterator[Check]:
    """Yield a line a check. Nothing in the image is run where its bytes are not what they should be."""
    record = build_record(image)
    failed = False
    for check in (*_bytes(image, record, demand), *_signed(image, demand)):
        failed |= check.level == "FAIL"
        yield check
    if failed:
        yield Check("WARN", "what it says of itself was not looked at", "see the FAIL above")
        return
    told, own = labels(image), own_record(image)
    if own is None:
        yield Check("FAIL", "no /opt/btrm/image.json in it", "it is no image of btrm's: btrm container build makes one")
        return
    yield _agree("its labels", {field: told.get(label) for label, field in LABELS.items()}, own)
    if record is not None:
        yield _agree(str(build_record_path(image)), {field: as_text(record, field) for field in _RECORDED}, own)
    yield from _locks(own, demand)


def _bytes(image: Path, record: Mapping[str, Any] | None, demand: Demand) -> Iterator[Check]:
    """Yield whether the file is the very one that its record, a site or the caller names; hashed now."""
    if image.is_dir():
        yield Check(
            "WARN", f"{image}: a sandbox, which has no sha256", "build without --sandbox what runs are made with"
        )
        if demand.sha256:
            yield Check("FAIL", f"{', '.join(demand.sha256)}: a file is named, and this is a folder", _AGAIN)
        return
    found = sha256_file(image)
    said = {str(build_record_path(image)): str(record["sha256"])} if record is not None and record.get("sha256") else {}
    if not said:
        yield Check("WARN", f"no {build_record_path(image)}", "the build, pull and sign of btrm container write it")
    for who, sha256 in {**said, **demand.sha256}.items():
        if found == sha256.lower():
            yield Check("OK", f"sha256 {found}, as {who} says")
        else:
            yield Check("FAIL", f"sha256 {found}; {who} says {sha256}: another file, or a changed one", _AGAIN)
    if not said and not demand.sha256:
        yield Check("WARN", f"sha256 {found}, which nobody claims", "--sha256 HEX, or sha256 in the site's [container]")


def _signed(image: Path, demand: Demand) -> Iterator[Check]:
    if image.is_dir():
        if demand.signed or demand.keys:
            yield Check("FAIL", "a sandbox cannot be signed", "build without --sandbox")
        return
    level: Level = "FAIL" if demand.signed or demand.keys else "WARN"
    if is_squashfs(image):
        yield Check(level, "not signed: only a .sif can be", "btrm container verify the .sif that it was squashed from")
        yield from squashed_from(image)
        return
    found = signatures(image)
    if not found.count:
        yield Check(level, f"not signed ({found.problem})", f"btrm container sign {image}")
    elif found.problem:
        yield Check(
            "FAIL", f"its signature does not hold: {found.problem}", "apptainer key import, if you trust the key"
        )
    elif lacking := [key for key in demand.keys if not _is_among(key, found.signers)]:
        who = ", ".join(sorted(found.signers))
        yield Check("FAIL", f"signed by {who}, not by {', '.join(lacking)}", "take it from who has that key")
    else:
        yield Check("OK", f"signed by {', '.join(sorted(found.signers))}, and as it was then")


def _is_among(key: str, signers: frozenset[str]) -> bool:
    wanted = key.upper().removeprefix("0X").replace(" ", "")
    if len(wanted) != 40:
        raise ConfigError(f"--key {key}: the whole fingerprint, 40 hex digits (apptainer key list); ends are forged")
    return wanted in signers


def _agree(who: str, said: Mapping[str, str | None], own: Mapping[str, Any]) -> Check:
    wrong = [
        f"{field} {text} (in it: {as_text(own, field)})" for field, text in said.items() if text != as_text(own, field)
    ]
    if wrong:
        return Check("FAIL", f"{who} and its own record differ: {'; '.join(wrong)}", _AGAIN)
    return Check("OK", f"{who} and its own record say the same: {own.get('variant')}, btrm {own.get('version')}")


def _locks(own: Mapping[str, Any], demand: Demand) -> Iterator[Check]:
    """Yield whether the image stands on what this btrm has locked: packages, patches and base."""
    image = variants().images.get(as_text(own, "variant"))
    level: Level = "FAIL" if demand.lock else "WARN"
    if image is None:
        yield Check(
            level, f"variant {own.get('variant')}: not one of this btrm's", f"known: {', '.join(variants().images)}"
        )
        return
    again = f"btrm container build --variant {image.name}, or the btrm that it was built with"
    expected = {"lock_sha256": sha256_file(image.packages.path), "patches_sha256": SERIES}
    names = {"lock_sha256": image.packages.path.name, "patches_sha256": "the patches"}
    for field, wanted in expected.items():
        if as_text(own, field) != wanted:
            what = f"{names[field]}: built from {as_text(own, field)}, this btrm has {wanted}"
            yield Check(level, what, again)
        else:
            yield Check("OK", f"{names[field]}: this btrm's own")
    yield from _base(own, image, level, again)
    if own.get("code") != code_digest():
        yield Check(
            "OK", f"btrm's code in it is {own.get('code')}, here {code_digest()}: jobs bind a copy of this one over it"
        )


def _base(own: Mapping[str, Any], image: Image, level: Level, again: str) -> Iterator[Check]:
    """Yield what an image stands on. Of a file that was prepared from another image nothing shows that it was."""
    file, said = own.get("base_file"), as_text(own, "base")
    name = f"{file}, prepared from {said} (its own word)" if file not in (None, said) else said
    wanted = image.base.partition("@")[2] if image.base else None
    if wanted is not None and said != wanted:
        yield Check(level, f"the base: {name}; this btrm has {wanted}", again)
    elif wanted is not None:
        yield Check("OK", f"the base: {name}: this btrm's own" if name == said else f"the base: {name}")
    else:
        yield Check("OK", f"the base: {name}; for this variant none is named")
