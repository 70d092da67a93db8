"""A stage directory for one process at a time: the kernel's lock on one machine, and a lease where jobs are."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Generator
from pathlib import Path
from typing import IO

from btrm.config import ConfigError
from btrm.leases import claim, holding, live_owner

OWNER = "BTRM_OWNER"  # the job that this process is part of, as "job 123"; set by the job's runner
_NO_LOCKS = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK})  # Lustre mounted without -o flock


@contextlib.contextmanager
def exclusive(directory: Path) -> Generator[None]:
    """Hold a stage directory for this process; raise ConfigError where another live one holds it.

    On one machine the lock is the kernel's and goes with the process, so kill -9 leaves nothing to clean. A cluster's
    job (BTRM_OWNER) holds a lease too, since its node may be cut off and live on: the next attempt takes it over, and
    fences this one.
    """
    directory.mkdir(parents=True, exist_ok=True)
    owner = os.environ.get(OWNER)
    with (directory / ".lock").open("a+") as file:
        _lock(file, directory, owner)
        if owner is None:
            if (other := live_owner(directory)) is not None:
                raise ConfigError(f"{directory}: {other} is working here")
            yield
            return
        with holding(claim(directory, owner)):
            yield


def _lock(file: IO[str], directory: Path, owner: str | None) -> None:
    """Take the kernel's lock. A job goes on without it where another job holds it: its lease decides between them.

    Where the file system has no locks everyone goes on, and the leases of jobs are all that is looked at.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip()
        if owner is None or not holder.startswith("job "):
            raise ConfigError(f"{directory}: another process is working here ({holder})") from None
        return
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return
    file.truncate(0)
    file.write(f"{owner or f'pid {os.getpid()}'} on {socket.gethostname()}")
    file.flush()
