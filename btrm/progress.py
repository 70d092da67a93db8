"""Progress: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
_LOG_EVERY_S = 15.0


def progress(items: Iterable[T], total: int | None, what: str, unit: str = "it") -> Iterator[T]:
    """Yield `items` while showing how many of `total` are done."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, desc=what, unit=unit, dynamic_ncols=True)
        return
    started = last = time.monotonic()
    for count, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= _LOG_EVERY_S:
            last = now
            _LOG.info("%s: %d%s %s, %.0f s", what, count, f"/{total}" if total else "", unit, now - started)
