"""Which runs a command is about, and how times are written for people."""

from __future__ import annotations

import calendar
import time
from pathlib import Path

from btrm.config import ConfigError, nearest
from btrm.launch.submission import JOBS
from btrm.runs import MANIFEST, REQUEST

RUNS = Path("runs")


def find_run(name: str) -> Path:
    """Return the run's folder: given as a path, as an experiment's name, or as a part of that after its dot."""
    for path in (Path(name), RUNS / name):
        if path.is_dir():
            return path.resolve()
    known = [path.name for path in all_runs()]
    short = [run for run in known if run.partition(".")[2] == name]
    if len(short) == 1:
        return (RUNS / short[0]).resolve()
    there = nearest(name, known) if known else f"; there are no runs in {RUNS.absolute()}"
    raise ConfigError(f"run {name!r}: no such folder, nor a run in {RUNS}/{there}")


def find_runs(names: list[str]) -> list[Path]:
    """Return the runs that are named, or every run below runs/; raise ConfigError where there is none."""
    found = [find_run(name) for name in names] if names else all_runs()
    if not found:
        raise ConfigError(f"no runs in {RUNS.absolute()}; name one: btrm COMMAND RUN")
    return found


def all_runs() -> list[Path]:
    """Return every run below runs/, by name."""
    return [path.resolve() for path in sorted(RUNS.glob("*")) if path.is_dir() and _holds_run(path)]


def _holds_run(path: Path) -> bool:
    return (path / JOBS).is_dir() or any(next(path.glob(f"*/{name}"), None) for name in (REQUEST, MANIFEST))


def duration(seconds: float) -> str:
    """Return a span of time in the unit that fits."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36 * 3600 else f"{seconds / 86400:.1f} d"


def ago(then: float, now: float | None = None) -> str:
    """Return how long ago something was."""
    return f"{duration(max(0.0, (now or time.time()) - then))} ago"


def epoch(text: str) -> float | None:
    """Return a time as btrm writes it (2026-01-31T12:00:00Z) in seconds since the epoch; None where it is none."""
    try:
        return float(calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ")))
    except ValueError:
        return None
