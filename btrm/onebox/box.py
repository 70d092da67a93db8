"""The one-box cluster: starting it, ending it, and talking to it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from btrm.config import ConfigError
from btrm.onebox.conf import Settings, find, lay_out, load_settings, require_packages, user_name
from btrm.onebox.processes import Process, end, end_all, record, recorded

_START_S = 180.0  # a daemon that dies is told at once


class ClusterError(RuntimeError):
    """A daemon died, a command failed, or something did not happen in time."""


@dataclass
class OneBox(Settings):
    """A real Slurm on this machine.

    `start()` leaves it running when this process ends; as a context manager it ends with the process, even by kill -9.
    """

    _children: dict[str, subprocess.Popen[bytes]] = field(
        default_factory=dict[str, "subprocess.Popen[bytes]"], init=False, repr=False, compare=False
    )

    @classmethod
    def open(cls, root: Path) -> Self:
        """Return the cluster that was started in this folder; raise ConfigError where none was."""
        return cls(root=root, **load_settings(root))

    @property
    def env(self) -> dict[str, str]:
        """What a process needs in its environment to talk to this cluster."""
        return {"SLURM_CONF": str(self.conf)}

    @property
    def daemons(self) -> dict[str, Process]:
        """{name: process} of the daemons that run: slurmctld, slurmd.NODE, munged, slurmdbd, mariadbd."""
        for child in self._children.values():
            child.poll()  # a zombie is waited for by its parent, this process
        return recorded(self.root / "daemons")

    @property
    def daemon_names(self) -> list[str]:
        """The daemons that should run."""
        database = ["mariadbd", "slurmdbd"] if self.accounting else []
        return ["munged", *database, "slurmctld", *(f"slurmd.{name}" for name in self.names)]

    def start(self) -> Self:
        """Start every daemon and wait until all nodes are idle."""
        require_packages(self.accounting)
        if self.daemons:
            raise ConfigError(f"{self.root}: a cluster is up here already")
        end_all(self.conf, self.root / "daemons")  # what a cluster left here that was itself killed
        lay_out(self)
        try:
            self._start_all()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the cluster, its jobs and whatever they left behind."""
        end_all(self.conf, self.root / "daemons")
        for child in self._children.values():
            child.kill()  # the keeper is left
            child.wait()

    def __enter__(self) -> Self:
        self.start()
        words = [str(os.getpid()), str(self.conf), str(self.root / "daemons")]
        self._popen("keeper", [sys.executable, "-m", "btrm.onebox.keeper", *words])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def run(self, *command: str, timeout_s: float = 60.0) -> str:
        """Run a command against this cluster and return its stdout, stripped; raise ClusterError where it fails."""
        done = subprocess.run(
            command, env=os.environ | self.env, text=True, capture_output=True, timeout=timeout_s, check=False
        )
        if done.returncode:
            raise ClusterError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr.strip()}")
        return done.stdout.strip()

    def wait_until(self, what: str, ready: Callable[[], bool], timeout_s: float = _START_S) -> None:
        """Wait for a condition; raise ClusterError when it did not come about in time."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if time.monotonic() > deadline:
                raise ClusterError(f"{what}: not within {timeout_s:g} s; logs in {self.root / 'log'}")
            time.sleep(0.02)

    def node_states(self) -> dict[str, str]:
        """{node: state} in sinfo's compact words (idle, mix, alloc, down*, drain, …)."""
        lines = self.run("sinfo", "-h", "-N", "-p", "low", "-o", "%N %t").splitlines()
        return dict(line.split() for line in lines)

    def start_node(self, node: str) -> None:
        """Start a node's slurmd."""
        if node not in self.names:
            raise ConfigError(f"node {node!r}: no such node; valid: {', '.join(self.names)}")
        (self.root / "spool" / node).mkdir(exist_ok=True)
        self._spawn(f"slurmd.{node}", [_path("slurmd"), "-D", "-N", node])

    def kill_node(self, node: str) -> None:
        """Kill -9 a node's slurmd; its tasks run on."""
        self.kill(f"slurmd.{node}")

    def start_controller(self, *flags: str) -> None:
        """Start slurmctld and wait until it answers; without flags it takes up the jobs that it had saved."""
        self._spawn("slurmctld", [_path("slurmctld"), "-D", *flags])
        self._wait_for("slurmctld", lambda: _answers(self.port))

    def kill_controller(self) -> None:
        """Kill -9 slurmctld: what it did since it last saved is forgotten, and running jobs may be started anew."""
        self.kill("slurmctld")

    def restart_controller(self) -> None:
        """Restart slurmctld as an administrator does: it saves its jobs and takes them up again."""
        self._end("slurmctld", signal.SIGTERM)
        self.start_controller()

    def start_accounting(self) -> None:
        """Start slurmdbd and wait until it answers."""
        self._spawn("slurmdbd", [_path("slurmdbd"), "-D"])
        self._wait_for("slurmdbd", lambda: _answers(self.port + 1))

    def limit_submit(self, jobs: int) -> None:
        """Let this user have at most so many jobs (an array's elements each) queued or running; -1: any number."""
        if not self.accounting:
            raise ConfigError(
                "limit_submit: a limit on submitting is kept by the accounting; start with accounting=True"
            )
        self.run("sacctmgr", "-i", "modify", "user", user_name(), "set", f"MaxSubmitJobs={jobs}")

    def kill(self, name: str) -> None:
        """Kill -9 a daemon by its name in `daemons`; raise ConfigError where it does not run."""
        self._end(name, signal.SIGKILL)

    def _end(self, name: str, how: signal.Signals) -> None:
        running = self.daemons
        if name not in running:
            raise ConfigError(f"{name}: does not run; running: {', '.join(running) or 'nothing'}")
        end([running[name]], how)
        if child := self._children.pop(name, None):
            child.wait()

    def _start_all(self) -> None:
        munge = self.root / "munge"
        files = [f"--{name}-file={munge / name}" for name in ("key", "pid", "log", "seed")]
        self._spawn("munged", [_path("munged"), "-F", "--force", f"--socket={munge / 'socket'}", *files])
        if self.accounting:
            options = [f"--defaults-file={self.root}/etc/mariadbd.conf", f"--user={user_name()}"]
            self._spawn("mariadbd", [_path("mariadbd"), *options])
            log = self.root / "log" / "mariadbd.log"
            self._wait_for("mariadbd", lambda: log.exists() and "ready for connections" in log.read_text())
        self._wait_for("munged", (munge / "socket").exists)
        if self.accounting:
            self.start_accounting()
        self.start_controller("-c")
        if self.accounting and user_name() != "root":  # root has an association from the beginning
            self.run("sacctmgr", "-i", "add", "account", "lab")
            self.run("sacctmgr", "-i", "add", "user", user_name(), "account=lab", "DefaultAccount=lab")
        for node in self.names:
            self.start_node(node)
        for node in self.names:
            self._wait_for(f"slurmd.{node}", partial(self._is_idle, node))

    def _is_idle(self, node: str) -> bool:
        return self.node_states()[node] == "idle"

    def _spawn(self, name: str, command: list[str]) -> None:
        child = self._popen(name, command)
        if process := Process.of(child.pid):
            record(self.root / "daemons", name, process)

    def _popen(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        """Start a child in a session of its own, away from the terminal's Ctrl-C and from a job that we may be in."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH_", "SRUN_"))}
        clean |= self.env | {"MYSQL_UNIX_PORT": str(self.root / "database" / "socket")}
        with (self.root / "log" / f"{name}.out").open("ab") as log:
            child = subprocess.Popen(
                command, env=clean, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._children[name] = child
        return child

    def _wait_for(self, name: str, ready: Callable[[], bool]) -> None:
        """Wait for a daemon that was just started; raise ClusterError with its log where it has died."""
        self.wait_until(name, lambda: ready() or self._raise_if_dead(name))

    def _raise_if_dead(self, name: str) -> bool:
        child = self._children[name]
        if child.poll() is not None:
            end_of_log = (self.root / "log" / f"{name}.out").read_text(errors="replace")[-2000:]
            raise ClusterError(f"{name} died with exit {child.returncode}: {end_of_log.strip()}")
        return False


def _path(command: str) -> str:
    path = find(command)
    assert path is not None, command
    return path


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
    except OSError:
        return False
    return True
