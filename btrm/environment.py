"""The environment of a run: secrets and paths from `.env`, never settings."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path

from btrm.config import read_env_file
from btrm.rewards.config import refuse_environment

_SECRET = ("_KEY", "_TOKEN", "_SECRET", "_PASSWORD")


def load_environment(environ: MutableMapping[str, str], dotenv: Path) -> list[str]:
    """Read `.env` into `environ` (what is set already wins) and return notes for people.

    Raises ConfigError for settings in either: they would leak from one experiment into the next.
    """
    values = read_env_file(dotenv) if dotenv.is_file() else {}
    refuse_environment({**values, **environ})
    secrets = sorted(name for name in values if name.endswith(_SECRET))
    notes: list[str] = []
    if secrets and dotenv.stat().st_mode & 0o077:
        notes.append(f"{dotenv} holds {', '.join(secrets)}, and others may read it: chmod 600 {dotenv}")
    for name, value in values.items():
        environ.setdefault(name, value)
    if environ.pop("TRANSFORMERS_CACHE", None) is not None:
        notes.append("TRANSFORMERS_CACHE is no longer read by transformers: dropped; set HF_HOME instead")
    return notes
