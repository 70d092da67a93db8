"""What tokens cost: a table that ships with btrm, and the user's own before it."""

from __future__ import annotations

import fnmatch
import tomllib
from pathlib import Path
from typing import Any

from btrm.config import Config, ConfigError, setting
from btrm.teacher.base import Usage
from btrm.teacher.config import APIS, TeacherConfig

_TABLE = Path(__file__).with_name("prices.toml")


class Price(Config):
    """Dollars per million tokens. `batch` is the factor of the batch mode."""

    input: float = setting(ge=0)
    output: float = setting(ge=0)
    cached: float | None = setting(None, ge=0)
    cache_written: float | None = setting(None, ge=0)
    batch: float = setting(0.5, gt=0, le=1)

    def usd(self, usage: Usage, mode: str) -> float:
        """Return what a call cost; cached tokens without a price of their own are charged as input."""
        cached = self.input if self.cached is None else self.cached
        written = self.input if self.cache_written is None else self.cache_written
        dollars = usage.input * self.input + usage.output * self.output
        dollars += usage.cached * cached + usage.cache_written * written
        return dollars * (self.batch if mode == "batch" else 1.0) / 1e6


_FREE = Price(input=0, output=0)


def price_of(config: TeacherConfig) -> Price | None:
    """Return the price of a teacher's model, None where nobody told; what runs on own machines is free.

    Raises ConfigError for a table that cannot be read.
    """
    if config.backend not in APIS:
        return _FREE
    for path in ([Path(config.prices).expanduser()] if config.prices else []) + [_TABLE]:
        table = _read(path)
        for pattern, values in table.get(config.backend, {}).items():
            if fnmatch.fnmatchcase(config.model or "", pattern):
                return Price.build(values, f"{path}: [{config.backend}.{pattern!r}]")
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"prices {path}: no such file") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from None
