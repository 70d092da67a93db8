"""Fencing: of two attempts at one directory the newer one owns it, and the older may no longer commit.

A node that only lost its network runs on while Slurm starts the job again elsewhere: two writers. Each claims the
directory by the next number, `.leases/N`; a link decides who gets it. The file's time is renewed while its owner lives,
so that others can tell a live owner from a dead one, by the file system's own clock. Every commit asks first whether a
higher number is there: a fenced writer raises `Fenced`, and commits nothing more.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

LEASES = ".leases"
RENEW_S = 5.0
STALE_S = 20.0
WAIT_S = 10.0  # another job that lives has so long to end, or to learn that a newer one has its work
VARIABLE = "BTRM_LEASES"


_claimed: dict[Path, int] = {}  # what this process has claimed, given back or not


class Fenced(RuntimeError):  # noqa: N818
    """A newer attempt owns the directory; this one must end without a commit."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A claim on a directory. `owner` names the job; claims of one owner replace each other at once."""

    directory: Path
    number: int

    @property
    def file(self) -> Path:
        """The claim's file; its time says when the owner was last alive."""
        return self.directory / LEASES / str(self.number)

    def renew(self) -> None:
        """Say that the owner is alive."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.file)

    def check(self) -> None:
        """Raise Fenced where a newer attempt has claimed the directory."""
        newest = _newest(self.directory)
        if newest is not None and newest.number > self.number:
            raise Fenced(f"{self.directory}: claimed by {owner_of(newest)}; this attempt writes nothing more")


def claim(directory: Path, owner: str, wait_s: float = WAIT_S) -> Lease:
    """Claim a directory, newest wins: wait a while for another owner to give it back or go stale, then take it over.

    A job that Slurm has given up, on a node that is cut off, lives on and renews its claim; it must not keep out the
    job that was sent in its place. Two never take turns: a process that has claimed the directory before raises Fenced
    where anyone else has since.
    """
    deadline = time.monotonic() + wait_s
    while True:
        newest = _newest(directory)
        if newest is not None and directory in _claimed:
            Lease(directory, _claimed[directory]).check()
        if newest is None or _may_follow(newest, owner) or time.monotonic() > deadline:
            lease = Lease(directory, newest.number + 1 if newest else 1)
            if _create(lease, owner):
                _claimed[directory] = lease.number
                return lease
            continue
        time.sleep(min(0.5, wait_s / 4))


def _may_follow(newest: Lease, owner: str) -> bool:
    """Say whether a claim may be replaced at once: one of the same job, one given back, one whose owner is dead."""
    return owner_of(newest) in {owner, ""} or age(newest) > STALE_S


def release(lease: Lease) -> None:
    """Give a claim back: the next owner need not wait. Its number is kept, since numbers only rise."""
    with contextlib.suppress(OSError, Fenced):
        lease.check()
        _write(lease, "", replace=True)


def live_owner(directory: Path) -> str | None:
    """Return who works in a directory by a fresh claim, or None."""
    newest = _newest(directory)
    return owner_of(newest) if newest and owner_of(newest) and age(newest) <= STALE_S else None


def owner_of(lease: Lease) -> str:
    """Return who made a claim; empty where it was given back."""
    try:
        return str(json.loads(lease.file.read_text())["owner"])
    except (FileNotFoundError, ValueError):
        return ""


def age(lease: Lease) -> float:
    """Return the seconds since a claim was renewed, by the file system's clock: nodes' own clocks may differ."""
    probe = lease.directory / LEASES / f".clock-{uuid.uuid4().hex[:8]}"
    try:
        probe.touch()
        return probe.stat().st_mtime - lease.file.stat().st_mtime
    except FileNotFoundError:
        return 0.0
    finally:
        probe.unlink(missing_ok=True)


_held: list[Lease] = []


@contextlib.contextmanager
def holding(lease: Lease) -> Generator[None]:
    """Have every commit of this process, and of its children, ask for this lease first; give it back at the end."""
    _held.append(lease)
    os.environ[VARIABLE] = json.dumps([[str(held.directory), held.number] for held in _held])
    try:
        yield
    finally:
        _held.remove(lease)
        os.environ[VARIABLE] = json.dumps([[str(held.directory), held.number] for held in _held])
        release(lease)


def held() -> list[Lease]:
    """Return the leases of this process, or of the stage that started it."""
    if _held:
        return list(_held)
    return [Lease(Path(directory), number) for directory, number in json.loads(os.environ.get(VARIABLE, "[]"))]


def check_held() -> None:
    """Raise Fenced where any lease of this process has been taken over. Called before every commit."""
    for lease in held():
        lease.check()


def _newest(directory: Path) -> Lease | None:
    try:
        numbers = [int(entry.name) for entry in os.scandir(directory / LEASES) if entry.name.isdigit()]
    except FileNotFoundError:
        return None
    return Lease(directory, max(numbers)) if numbers else None


def _create(lease: Lease, owner: str) -> bool:
    lease.file.parent.mkdir(parents=True, exist_ok=True)
    if not _write(lease, owner, replace=False):
        return False
    newest = _newest(lease.directory)
    if newest is None or newest.number > lease.number:  # slept meanwhile: its number had been used and cleared away
        lease.file.unlink(missing_ok=True)
        return False
    for old in os.scandir(lease.file.parent):
        if old.name.isdigit() and int(old.name) < lease.number - 1:
            Path(old.path).unlink(missing_ok=True)
    return True


def _write(lease: Lease, owner: str, *, replace: bool) -> bool:
    """Write a claim whole; return False where its number is taken."""
    scratch = lease.file.with_name(f".{lease.number}-{uuid.uuid4().hex[:8]}")
    scratch.write_text(json.dumps({"owner": owner, "host": socket.gethostname(), "pid": os.getpid()}))
    if replace:
        scratch.replace(lease.file)
        return True
    try:
        os.link(scratch, lease.file)
    except FileExistsError:
        return False
    finally:
        scratch.unlink()
    return True
