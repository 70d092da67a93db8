"""A record that processes on many machines change in turn, by links alone; whoever dies leaves it whole.

The record is a file whose name is a number. A change is computed from the newest, and won by linking a scratch file to
the next number: a link never replaces, so of several only one wins, and the others look again. There is nothing to
hold, so nobody who is killed, or cut off, holds it for ever.

Old numbers are removed, and whoever slept may win one of them anew; so the record's first line counts the changes of
each process, and tells everyone whether a change of its own is in it.
"""

from __future__ import annotations

import json
import os
import random
import socket
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

_LOOKS = 1000
_WRITERS = 1000  # so many processes are told apart; more never write within one step of another
_MEASURE_S = 60.0
_STRAY_S = 600.0


class FileClock:
    """The file system's clock, which is the same for all nodes: this process's own, and how far that is off.

    The offset is taken from the times of new files, from the quickest one of the last minute.
    """

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()
        self._slack = float("inf")
        self._measured = -_MEASURE_S

    def now(self) -> float:
        """Return seconds since 1970."""
        return time.monotonic() + self._offset

    def measure(self, before: float, modified: float, after: float) -> None:
        """Take a file's time, set between two moments of time.monotonic()."""
        slack = after - before
        if slack <= self._slack or after - self._measured > _MEASURE_S:
            self._offset, self._slack, self._measured = modified - (before + after) / 2, slack, after


class Chain:
    """The record in a directory. Its calls block for as long as the file system takes; from one thread at a time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = FileClock()
        self._sign = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        self._changes = 0

    def look(self) -> bytes:
        """Return the newest record; empty where there is none."""
        with self._scratch():
            return self._newest()[2]

    def update(self, change: Callable[[bytes, float], bytes | None]) -> None:
        """Have `change(record, now)` made of the newest record; None leaves that. It is called until its result wins.

        Raises OSError where the file system fails.
        """
        mine = self._changes + 1
        linked: Path | None = None
        for look in range(_LOOKS):
            with self._scratch() as scratch:
                number, counts, record = self._newest()
                if counts.get(self._sign) == mine:
                    self._changes = mine
                    return
                if linked is not None:  # slept meanwhile: its number had been used and cleared away
                    linked.unlink(missing_ok=True)
                new = change(record, self.clock.now())
                if new is None:
                    return
                counts.pop(self._sign, None)
                counts = dict(list(counts.items())[-_WRITERS:]) | {self._sign: mine}
                scratch.write_bytes(json.dumps(counts).encode() + b"\n" + new)
                linked = self.directory / str(number + 1)
                if not _link(scratch, linked):
                    linked = None
                elif self._is_newest(number + 1):
                    self._changes = mine
                    return
            time.sleep(random.uniform(0, min(0.002 * 2 ** min(look, 6), 0.1)))
        raise OSError(f"{self.directory}: others were first {_LOOKS} times")

    def sweep(self) -> None:
        """Remove what processes that were killed have left behind."""
        for entry in os.scandir(self.directory):
            with suppress(FileNotFoundError):
                if entry.name.startswith(".") and self.clock.now() - entry.stat().st_mtime > _STRAY_S:
                    Path(entry.path).unlink()

    @contextmanager
    def _scratch(self) -> Generator[Path]:
        """Make an empty file. It tells the file system's time, and makes NFS look at the directory anew."""
        path = self.directory / f".{self._sign}.{uuid.uuid4().hex[:8]}"
        before = time.monotonic()
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileNotFoundError:
            self.directory.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            after = time.monotonic()
            self.clock.measure(before, os.fstat(descriptor).st_mtime, after)
            os.close(descriptor)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _numbers(self) -> list[int]:
        return [int(entry.name) for entry in os.scandir(self.directory) if entry.name.isdigit()]

    def _newest(self) -> tuple[int, dict[str, int], bytes]:
        """Return the newest record: its number, how many changes of each process are in it, and itself."""
        for _ in range(_LOOKS):
            number = max(self._numbers(), default=0)
            if not number:
                return 0, {}, b""
            try:
                counts, _, record = (self.directory / str(number)).read_bytes().partition(b"\n")
                return number, dict(json.loads(counts)), record
            except ValueError:  # a power cut has left it empty
                return number, {}, b""
            except OSError:  # gone, or stale on NFS: newer ones are there by now
                time.sleep(0.001)
        raise OSError(f"{self.directory}: its newest record was gone at {_LOOKS} looks")

    def _is_newest(self, number: int) -> bool:
        """Say whether nobody is further; clear away what is older."""
        numbers = self._numbers()
        if max(numbers, default=number) > number:
            return False
        for old in numbers:
            if old < number - 1:
                (self.directory / str(old)).unlink(missing_ok=True)
        return True


def _link(scratch: Path, target: Path) -> bool:
    """Link where nothing is; return False where something is."""
    try:
        os.link(scratch, target)
    except OSError as error:
        with suppress(FileNotFoundError):
            if target.samefile(scratch):  # NFS: done, the answer was lost, and the second try met the first one's link
                return True
        if isinstance(error, FileExistsError):
            return False
        raise
    return True
