"""Owning a share: one attempt at a time asks for a pair, whoever else was sent to."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from btrm.config import ConfigError
from btrm.leases import RENEW_S, STALE_S, Lease, claim, holding, live_owner
from btrm.locks import OWNER
from btrm.runs import StageRun
from btrm.teacher.journal import Journal, repair
from btrm.work import Unit

CALLS, SHARES = "calls", ".shares"
_JOB = "job "  # what the name of an owner that is a job begins with


@contextmanager
def claimed(run: StageRun, units: Sequence[Unit]) -> Generator[Journal]:
    """Own a share: another attempt at it is fenced, its torn line is mended, and this one has a journal of its own.

    Raises ConfigError where others who live ask for some of its pairs by another cut.
    """
    first = min(first for unit in units for first, _ in unit.missing)
    last = max(last for unit in units for _, last in unit.missing)
    owner, name = os.environ.get(OWNER), f"{first:07d}-{last:07d}"
    # A process by itself holds the stage's directory: whoever claimed the share before on this machine is dead.
    lease = claim(run.dir / SHARES / name, owner or f"pid {os.getpid()}", **({} if owner else {"wait_s": 0.0}))
    with holding(lease), _renewed(lease):
        _refuse_overlap(run.dir / SHARES, name, owner)
        for path in (run.dir / CALLS).glob(f"{name}.*.jsonl"):
            repair(path)
        journal = Journal(run.dir / CALLS / f"{name}.{lease.number:04d}.jsonl")
        try:
            yield journal
        finally:
            journal.close()


def live_jobs(shares: Path) -> list[str]:
    """Return the jobs that own shares now."""
    owners = {live_owner(share) for share in shares.iterdir()} if shares.is_dir() else set[str | None]()
    return sorted(owner for owner in owners if owner is not None and owner.startswith(_JOB))


def _refuse_overlap(shares: Path, name: str, owner: str | None) -> None:
    """Wait until those who asked for some of these pairs are seen to be dead; raise ConfigError where they live."""
    deadline = time.monotonic() + (STALE_S + RENEW_S if owner else 0.0)
    while others := [found for share in _overlapping(shares, name) if (found := _other(share, owner))]:
        if time.monotonic() > deadline:
            told = ", ".join(others)
            raise ConfigError(f"{shares.parent}: {told} asks for some of these pairs; wait for it, or btrm cancel it")
        time.sleep(1.0)


def _other(share: Path, owner: str | None) -> str | None:
    """Return who owns a share. Of processes by themselves only one has the directory, on one machine."""
    found = live_owner(share)
    return None if found is None or found == owner or (owner is None and not found.startswith(_JOB)) else found


def _overlapping(shares: Path, name: str) -> list[Path]:
    first, last = _range(name)
    ranges = {share: _range(share.name) for share in shares.iterdir() if share.name != name}
    return [share for share, (start, end) in ranges.items() if start < last and first < end]


def _range(name: str) -> tuple[int, int]:
    first, _, last = name.partition("-")
    return int(first), int(last)


@contextmanager
def _renewed(lease: Lease) -> Generator[None]:
    """Say now and then that the owner lives, where no job's runner does."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(RENEW_S):
            lease.renew()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
