"""Which processes are this cluster's, and how to end them and no others.

Only the standard library is imported: the keeper, which every test's cluster starts, must be up at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

_DAEMONS = {"slurmctld", "slurmd", "slurmstepd", "slurmdbd", "munged", "mariadbd"}


@dataclass(frozen=True, slots=True)
class Process:
    """A process, and when it started (clock ticks since boot): its number alone may come to be another's."""

    pid: int
    start: int

    @staticmethod
    def of(pid: int) -> Process | None:
        """Return the live process with this number; None where there is none, or only a zombie."""
        fields = _stat(pid)
        return Process(pid, int(fields[19])) if fields and fields[0] not in "ZX" else None

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return Process.of(self.pid) == self

    def send(self, what: signal.Signals) -> None:
        """Send a signal where it still runs."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, what)


def record(folder: Path, name: str, process: Process) -> None:
    """Write down a daemon that was started."""
    (folder / f"{name}.json").write_text(json.dumps(asdict(process)))


def recorded(folder: Path) -> dict[str, Process]:
    """Return {name: process} of the recorded daemons that still run."""
    found: dict[str, Process] = {}
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(FileNotFoundError):  # the process that holds the cluster may be ending it just now
            found[path.stem] = Process(**json.loads(path.read_text()))
    return {name: process for name, process in found.items() if process.alive}


def end(processes: Iterable[Process], how: signal.Signals = signal.SIGKILL) -> None:
    """End processes and wait until they are gone; kill -9 those that are still there after 10 s."""
    left = list(processes)
    for what in (how, signal.SIGKILL):
        for process in left:
            process.send(what)
        deadline = time.monotonic() + 10
        while (left := [process for process in left if process.alive]) and time.monotonic() < deadline:
            time.sleep(0.005)


def end_all(conf: Path, daemons: Path) -> None:
    """End a cluster: its recorded daemons first, so that they start nothing new, then whatever they had started."""
    end(recorded(daemons).values())
    for _ in range(10):  # a dying step may still start something
        if not (strays := _of_cluster(conf)):
            break
        end(strays)
    for path in daemons.glob("*.json"):
        path.unlink(missing_ok=True)


def step_tasks(conf: Path, job: str) -> list[Process]:
    """Return the processes of a job's steps, or of its batch script where no step runs; never a slurmstepd.

    `job` is Slurm's own number of the job; an array's element has one too. A task that is being started is not one yet:
    its slurmstepd would wait for it for ever.
    """
    steps: dict[str, int] = {}
    for pid in _pids():
        title = _read(pid, "cmdline").rstrip(b"\0 ").decode(errors="replace")
        if title.startswith(f"slurmstepd: [{job}.") and _belongs(pid, conf):
            steps[title.rpartition(".")[2].rstrip("]")] = pid
    own = [pid for step, pid in steps.items() if step not in {"batch", "extern"}]
    roots = set(own or steps.values())
    family = _with_descendants(roots) - roots
    return _parents_first(pid for pid in family if _name(pid) != "slurmstepd")


def _of_cluster(conf: Path) -> list[Process]:
    """Return this cluster's daemons and what runs on its nodes, with all descendants."""
    roots = {pid for pid in _pids() if _belongs(pid, conf)}
    return _parents_first(_with_descendants(roots) - {os.getpid()})


def _parents_first(pids: Iterable[int]) -> list[Process]:
    """Return the live ones in the order to kill them: a shell that loses its child first goes on to its next line."""
    processes = [process for pid in pids if (process := Process.of(pid))]
    return sorted(processes, key=lambda process: (process.start, process.pid))


def _belongs(pid: int, conf: Path) -> bool:
    """Whether a process carries this SLURM_CONF and is a daemon or runs on a node; a user's shell is neither.

    The title of a newer slurmstepd overwrites its environment, so its open log tells where it belongs.
    """
    variables = _variables(pid)
    if variables.get("SLURM_CONF") == str(conf):
        return "SLURMD_NODENAME" in variables or _name(pid) in _DAEMONS
    return _name(pid) == "slurmstepd" and any(
        file.startswith(f"{conf.parent.parent}/log/") for file in _open_files(pid)
    )


def _with_descendants(roots: set[int]) -> set[int]:
    parents = {pid: int(fields[1]) for pid in _pids() if (fields := _stat(pid))}
    family = set(roots)
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return family


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _read(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except OSError:  # gone, or another user's
        return b""


def _open_files(pid: int) -> list[str]:
    found: list[str] = []
    with contextlib.suppress(OSError):  # gone, or another user's
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            found.append(str(descriptor.readlink()))
    return found


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on; the name before it may hold blanks and brackets."""
    return _read(pid, "stat").decode(errors="replace").rpartition(")")[2].split()


def _name(pid: int) -> str:
    return _read(pid, "comm").decode(errors="replace").strip()


def _variables(pid: int) -> dict[str, str]:
    entries = _read(pid, "environ").decode(errors="replace").split("\0")
    return {key: value for key, _, value in (entry.partition("=") for entry in entries)}
