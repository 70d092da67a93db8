"""How long an API wants to be left alone, as its headers say it: in seconds, as a duration, or as a date."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_LONGEST_WAIT_S = 3600.0
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server wants to be left alone: retry-after-ms, or retry-after as seconds or a date."""
    given = {name.lower(): value.strip() for name, value in headers.items()}
    if (wait_s := _number(given.get("retry-after-ms"))) is not None:
        return min(wait_s / 1000, _LONGEST_WAIT_S)
    if (wait_s := _number(given.get("retry-after"))) is not None:
        return min(wait_s, _LONGEST_WAIT_S)
    return until(given.get("retry-after"))


def until(date: str | None) -> float | None:
    """Return the seconds until a date of HTTP or of RFC 3339; 0 for one that has passed, None for no date."""
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            when = read(date or "")
        except (ValueError, TypeError):
            continue
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        return min(max(when.timestamp() - time.time(), 0.0), _LONGEST_WAIT_S)
    return None


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None


def pause_s(headers: Mapping[str, str], remaining_reset: Sequence[tuple[str, str]]) -> float:
    """Return how long nothing may be sent: the longest reset of a limit of which nothing is left."""
    given = {name.lower(): value for name, value in headers.items()}
    waits = [wait(given.get(reset)) for remaining, reset in remaining_reset if _number(given.get(remaining)) == 0]
    return max(waits, default=0.0)


def wait(text: str | None) -> float:
    """Return the seconds of a reset: `6m0s`, `20ms`, a number of seconds, or a date."""
    if (seconds := _number(text)) is not None:
        return min(seconds, _LONGEST_WAIT_S)
    parts = _DURATION.findall(text or "")
    if parts and "".join(number + unit for number, unit in parts) == text:
        return min(sum(float(number) * _SECONDS[unit] for number, unit in parts), _LONGEST_WAIT_S)
    return until(text) or 0.0
