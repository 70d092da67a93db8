"""The trainer processes of one node: started together, and ended together as soon as one of them fails.

They meet by plain environment variables (RANK, WORLD_SIZE, MASTER_ADDR, …); the first process of the first node keeps
the store, so a job that Slurm starts again meets anew, on the same port or another.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from btrm.train.rank import FENCED, PARENT, STOPPED

_LINGER_S = 120.0  # a rank may end so much later than the first that ended well
_PORTS = range(20000, 32000)  # below those that the kernel deals out for connections


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node stands among those that train, and where all meet."""

    node: int = 0
    nodes: int = 1
    address: str = "127.0.0.1"
    port: int | None = None

    def variables(self, local: int, processes: int) -> dict[str, str]:
        """Return what one process is told; a process that is all alone is told nothing."""
        if self.nodes * processes == 1:
            return {}
        assert self.port is not None
        values = {
            "RANK": self.node * processes + local,
            "LOCAL_RANK": local,
            "WORLD_SIZE": self.nodes * processes,
            "LOCAL_WORLD_SIZE": processes,
            "NODE_RANK": self.node,
            "NNODES": self.nodes,
            "MASTER_PORT": self.port,
        }
        return {"MASTER_ADDR": self.address, **{name: str(value) for name, value in values.items()}}


class Ranks:
    """The processes of a node while they run."""

    def __init__(self, command: list[str], processes: int, place: Place, env: Mapping[str, str], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._ended_first: float | None = None
        self._children: list[subprocess.Popen[bytes]] = []
        with log.open("ab") as file, _sigterm_blocked():
            for local in range(processes):
                told = {PARENT: str(os.getpid()), **place.variables(local, processes)}
                self._children.append(
                    subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=file,
                        stderr=subprocess.STDOUT,
                        env={**env, **told},
                        start_new_session=True,
                    )
                )

    def poll(self) -> int | None:
        """Return how they ended, or None while they run: 0, STOPPED, or the code of one that failed."""
        codes = [child.poll() for child in self._children]
        bad = [code for code in codes if code not in (None, 0, STOPPED)]
        if bad:
            return FENCED if FENCED in bad else bad[0]
        if None not in codes:
            return STOPPED if STOPPED in codes else 0
        if any(code is not None for code in codes):
            self._ended_first = self._ended_first or time.monotonic()
            if time.monotonic() - self._ended_first > _LINGER_S:
                return 1
        return None

    def end(self) -> None:
        """Kill what is left of them, and what they started."""
        for child in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


@contextlib.contextmanager
def _sigterm_blocked():
    """Let children start with SIGTERM blocked: one that comes before they can listen waits for them.

    Here another thread, or this one afterwards, takes it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    for port in random.SystemRandom().sample(_PORTS, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port
    raise OSError(f"no free port among {_PORTS.start}-{_PORTS.stop}")


def python(module: str, *arguments: str) -> list[str]:
    """Return the command of a module of ours."""
    return [sys.executable, "-m", module, *arguments]
