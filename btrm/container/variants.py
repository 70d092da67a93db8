"""What is locked and built: the tables of `containers/variants.toml`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from btrm.config import Config, ConfigError, nearest
from btrm.plugins import shipped

_DIGEST = re.compile(r".+@sha256:[0-9a-f]{64}")
PLATFORM = "x86_64-manylinux_2_34"  # uv's name; older glibc leaves llguidance without a wheel


class Lock(Config):
    """A package set: `locks/NAME.in`, resolved for one Python into `locks/NAME.lock`, every file by its hash.

    `leave_out` names what is never installed though others ask for it; `beside` a lock whose versions this one keeps.
    """

    name: str
    python: str
    torch_index: str | None = None
    leave_out: tuple[str, ...] = ()
    exclude_newer: str | None = None
    exclude_newer_package: dict[str, str] = Field(default_factory=dict)
    beside: str | None = None

    @property
    def source(self) -> Path:
        """The short list that people edit."""
        return shipped("containers") / "locks" / f"{self.name}.in"

    @property
    def path(self) -> Path:
        """The complete list, with hashes."""
        return shipped("containers") / "locks" / f"{self.name}.lock"


class Image(Config):
    """An image: its packages, and the base it stands on, by digest. `driver`: the oldest NVIDIA driver it runs with."""

    name: str
    lock: str
    bootstrap: Literal["docker", "debootstrap"]
    base: str | None = None
    driver: int | None = None

    @model_validator(mode="after")
    def _by_digest(self) -> Self:
        if self.bootstrap == "docker" and not (self.base and _DIGEST.fullmatch(self.base)):
            raise ValueError(f"base = {self.base!r}: by digest, NAME:TAG@sha256:…")
        return self

    @property
    def packages(self) -> Lock:
        """The image's lock."""
        return get_lock(self.lock)


class Variants(Config):
    """The file as a whole."""

    locks: dict[str, Lock]
    images: dict[str, Image]


@cache
def variants() -> Variants:
    """Read the file; raise ConfigError for what it gets wrong."""
    path = shipped("containers") / "variants.toml"
    tables = tomllib.loads(path.read_text())
    named = {kind: {name: {"name": name, **v} for name, v in table.items()} for kind, table in tables.items()}
    return Variants.build(named, str(path))


def get_lock(name: str) -> Lock:
    """Return a lock by name."""
    return _named(variants().locks, name, "lock")


def get_image(name: str) -> Image:
    """Return an image's description by name."""
    return _named(variants().images, name, "variant")


def _named(table: Mapping[str, Any], name: str, what: str) -> Any:
    if name not in table:
        raise ConfigError(f"{what} {name!r}: {', '.join(table)}{nearest(name, table)}")
    return table[name]
