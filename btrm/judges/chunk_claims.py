"""Who is asking about which part: so that of several elements with nothing else to do each takes another one.

A claim is a link, called like the part, to its owner's file: one beat renews all claims of an owner. A dead owner's
claims count for nothing. Claims save work and decide nothing else: a part is won once, whoever else asked about it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import uuid
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from btrm.leases import RENEW_S, STALE_S

_OWNER = ".owner"


class Claims:
    """The claims of this process in a folder, kept alive while it is entered; all are given back at its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / f"{_OWNER}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._mine: set[str] = set()
        self._ended = threading.Event()
        self._beat = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> Self:
        """Begin to beat."""
        self._register()
        self._beat.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Give everything back."""
        self._ended.set()
        self._beat.join()
        self.release(list(self._mine))
        self._file.unlink(missing_ok=True)

    def __contains__(self, name: str) -> bool:
        """Say whether a part is claimed by this process."""
        return name in self._mine

    def take(self, name: str) -> bool:
        """Claim a part; False where somebody who lives has it."""
        target = self.folder / name
        for _ in range(3):  # free it from the dead, or make the folder that a commit has cleared away
            try:
                os.link(self._file, target)
            except FileExistsError:
                if self._is_mine(target):  # NFS: done, the answer was lost, and the second try met the first one's link
                    break
                if not self._bury(target):
                    return False
                continue
            except FileNotFoundError:
                self._register()
                continue
            break
        else:
            return False
        self._mine.add(name)
        return True

    def release(self, names: Iterable[str]) -> None:
        """Give claims back."""
        for name in names:
            self._mine.discard(name)
            if self._is_mine(target := self.folder / name):
                target.unlink(missing_ok=True)

    def _register(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file.write_text(f"{socket.gethostname()} {os.getpid()}")

    def _is_mine(self, target: Path) -> bool:
        try:
            return target.samefile(self._file)
        except FileNotFoundError:
            return False

    def _bury(self, target: Path) -> bool:
        """Take away a dead owner's claim; say whether the part is free. Of several who try, one moves it."""
        try:
            with target.open() as file:  # opening asks a network file system for the time as it is
                stat, owner = os.fstat(file.fileno()), file.read()
            if not self._is_dead(owner, stat.st_mtime):
                return False
            grave = self.folder / f".{uuid.uuid4().hex}"
            target.rename(grave)
            if grave.stat().st_ino != stat.st_ino:  # another one was quicker, and this is its claim
                with contextlib.suppress(FileExistsError):
                    os.link(grave, target)
            grave.unlink()
        except FileNotFoundError:
            return True
        return True

    def _is_dead(self, owner: str, seen: float) -> bool:
        host, _, pid = owner.partition(" ")
        if host == socket.gethostname() and pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            return Path("/proc/self").exists()
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._file)
            return self._file.stat().st_mtime - seen > STALE_S  # by the file system's own clock
        return False

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_S):
            with contextlib.suppress(OSError):
                os.utime(self._file)
