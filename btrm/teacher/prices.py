"""What tokens cost: a table that ships with btrm, and the user's own before it."""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from btrm.config import Config, ConfigError, nearest, setting
from btrm.teacher.base import Usage
from btrm.teacher.config import APIS, TeacherConfig

_TABLE = Path(__file__).with_name("prices.toml")
_OPENAI = "https://api.openai.com/"


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

    A server of one's own that speaks OpenAI's protocol has the price that the user's table gives it, and no other.
    Raises ConfigError for a table that cannot be read.
    """
    if config.backend not in APIS:
        return _FREE
    own = [Path(config.prices).expanduser()] if config.prices else []
    elsewhere = config.backend == "openai" and not (config.base_url or _OPENAI).startswith(_OPENAI)
    model = (config.model or "").removeprefix("models/")
    found: Price | None = None
    for path in [*own, *([] if elsewhere else [_TABLE])]:
        prices = _read(path).get(config.backend, {})
        fits = (price for pattern, price in prices.items() if fnmatch.fnmatchcase(model, pattern))
        found = found or next(fits, None)
    return found


def check_price(config: TeacherConfig) -> None:
    """Raise ConfigError for a budget that nobody can hold, as the model's price is not known."""
    if price_of(config) is None and config.budget_usd is not None:
        raise ConfigError(
            f"budget_usd {config.budget_usd:g}: the price of {config.backend} {config.model} is not known; give it "
            "with --prices FILE.toml, dollars per million tokens (0 where it is free):\n"
            f'  [{config.backend}]\n  "{config.model}" = {{ input = 1.0, output = 5.0 }}'
        )


def _read(path: Path) -> dict[str, dict[str, Price]]:
    """Return {backend: {pattern: price}}; raise ConfigError with every bad entry, by its file and key."""
    problems: list[str] = []
    table: dict[str, dict[str, Price]] = {}
    for backend, patterns in _toml(path).items():
        if backend not in APIS:
            problems.append(f"{path}: [{backend}]: no such API{nearest(backend, APIS)}")
        elif not isinstance(patterns, dict):
            problems.append(f"{path}: {backend}: expected a table of model patterns, got {patterns!r}")
        else:
            table[backend] = _prices(cast("dict[str, Any]", patterns), f"{path}: [{backend}]", problems)
    if problems:
        raise ConfigError("\n".join(problems))
    return table


def _prices(patterns: Mapping[str, Any], where: str, problems: list[str]) -> dict[str, Price]:
    prices: dict[str, Price] = {}
    for pattern, values in patterns.items():
        if not isinstance(values, dict):
            problems.append(f'{where} "{pattern}": expected {{ input = …, output = … }}, got {values!r}')
            continue
        try:
            prices[pattern] = Price.build(cast("dict[str, Any]", values), f'{where} "{pattern}"')
        except ConfigError as error:
            problems.append(str(error))
    return prices


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"prices {path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"prices {path}: cannot be read ({error})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from None
