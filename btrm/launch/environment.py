"""The environment of a run: secrets and paths from `.env`, never settings."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path

from btrm.config import ConfigError, read_env_file


def load_environment(environ: MutableMapping[str, str], dotenv: Path) -> list[str]:
    """Read `.env` into `environ` (what is set already wins), refuse settings there, and return notes for people.

    Settings in the environment would leak from one experiment into the next that is started from the same shell, so
    BT_* names are refused wherever they stand.
    """
    values = read_env_file(dotenv) if dotenv.is_file() else {}
    left_over = sorted(name for name in {*environ, *values} if name.startswith("BT_"))
    if left_over:
        raise ConfigError(
            f"settings in the environment: {', '.join(left_over)}; unset them, pass --set NAME=value or --preset FILE"
        )
    notes: list[str] = []
    for name, value in values.items():
        environ.setdefault(name, value)
    if environ.pop("TRANSFORMERS_CACHE", None) is not None:
        notes.append("TRANSFORMERS_CACHE is no longer read by transformers: dropped; set HF_HOME instead")
    return notes
