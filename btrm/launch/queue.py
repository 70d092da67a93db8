"""What the cluster's queue holds of this user's jobs: one squeue for everything, shared by all of the user's watchers.

The last answer lies in one file a user and cluster. Whoever finds it too old asks squeue, the others wait and read, so
that any number of watchers costs one question every `interval_s` seconds. Where squeue fails, what was last known is
returned with its age.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import subprocess
import time
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from btrm.runs import user_cache

PREFIX = "btrm-"
TIMEOUT_S = 30.0
ENDED_INTERVAL_S = 300.0
_FORMAT = "%i|%T|%N|%L|%S|%j|%r"  # the reason last: it alone may hold anything
# What sacct says of a job that has not ended, or not for good.
_NO_ENDS = frozenset({"PENDING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED", "RESIZING", "CONFIGURING"})
_SPAN = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """What squeue says of a job or of one element of an array. `start`: seconds since the epoch, where it is known."""

    state: str
    reason: str = ""
    node: str = ""
    time_left: str = ""
    start: float | None = None
    name: str = ""

    @property
    def waiting(self) -> bool:
        """Whether it has not begun."""
        return self.state in {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}


@dataclass(frozen=True, slots=True)
class QueueView:
    """The queue at the time `asked`; 0 where it was never reached. `problem` says why a newer look failed."""

    asked: float = 0.0
    problem: str = ""
    jobs: Mapping[str, Mapping[int | None, QueueEntry]] = field(
        default_factory=dict[str, Mapping[int | None, QueueEntry]]
    )

    @property
    def known(self) -> bool:
        """Whether a job's absence here says anything: false where squeue could not be asked lately."""
        return bool(self.asked) and not self.problem

    @property
    def age_s(self) -> float:
        """Seconds since squeue answered."""
        return max(0.0, time.time() - self.asked)

    def find(self, job: str, index: int | None = None) -> QueueEntry | None:
        """Return what is known of a job, or of an array's element: find("12", 3) and find("12_3") are the same."""
        if index is None and "_" in job:
            job, _, text = job.partition("_")
            index = int(text)
        return self.jobs.get(job, {}).get(index)

    def holds(self, prefix: str) -> bool:
        """Say whether the queue holds any job whose name begins so."""
        return any(e.name.startswith(prefix) for entries in self.jobs.values() for e in entries.values())


def look(interval_s: float = 30.0) -> QueueView:
    """Return the queue as it was at most `interval_s` seconds ago, where squeue answers."""
    try:
        with _cache() as path:
            seen = _read(path)
            if abs(time.time() - float(seen.get("tried", 0))) >= interval_s:
                seen = _ask(seen)
                _write(path, seen)
    except (OSError, RuntimeError):  # no home, or a full one: nothing can be shared
        seen = _ask({})
    return QueueView(float(seen.get("asked", 0)), str(seen.get("problem", "")), parse(str(seen.get("lines", ""))))


def forget() -> None:
    """Have the next look ask squeue: call it after jobs were sent or cancelled."""
    with contextlib.suppress(OSError, RuntimeError), _cache() as path:
        _write(path, _read(path) | {"tried": 0.0})


def parse(lines: str) -> dict[str, dict[int | None, QueueEntry]]:
    """Return {job: {element: entry}} of squeue's lines; the element is None where the job is no array."""
    jobs: dict[str, dict[int | None, QueueEntry]] = {}
    for line in lines.splitlines():
        parts = line.split("|", 6)
        if len(parts) != 7 or not parts[5].startswith(PREFIX):
            continue
        label, state, node, left, start, name, reason = parts
        job, _, elements = label.partition("_")
        begins = float(start) if start.isdecimal() else None
        entry = QueueEntry(state, "" if reason == "None" else reason, node, left, begins, name)
        jobs.setdefault(job, {}).update(dict.fromkeys(_elements(elements), entry))
    return jobs


def ended(ids: Iterable[str]) -> dict[str, str]:
    """Return {job id: Slurm's word for how it ended} as far as sacct, or slurmctld's short memory, can tell.

    Both may be missing or late; a job that is not in the answer may have ended in any way. One question tells about all
    elements of the arrays asked for, and is shared by all watchers for `ENDED_INTERVAL_S`: ask for a whole run at once.
    """
    wanted = list(ids)
    asked = sorted({job.partition("_")[0] for job in wanted})
    if not asked:
        return {}
    now = time.time()
    try:
        with _cache("ended") as path:
            seen = {job: told for job, told in _read(path).items() if abs(now - told["asked"]) < ENDED_INTERVAL_S}
            if new := [job for job in asked if job not in seen]:
                seen |= _ask_ends(new, now)
                _write(path, seen)
    except (OSError, RuntimeError):  # as in look
        seen = _ask_ends(asked, now)
    known: dict[str, str] = {element: word for job in asked for element, word in seen[job]["words"].items()}
    return {job: known[job] for job in wanted if job in known}


def _elements(text: str) -> list[int | None]:
    """Read an array's part of an id: nothing, 7, or [0-3,7,10-20:5%4]."""
    if not text:
        return [None]
    found: list[int | None] = []
    for first, last, step in _SPAN.findall(text.partition("%")[0]):
        found += range(int(first), int(last or first) + 1, int(step or 1))
    return found


def _ask(before: dict[str, Any]) -> dict[str, Any]:
    """Ask squeue; where it fails keep what was known, and do not ask again sooner than where it answers."""
    words = ("squeue", "-h", "-u", str(os.getuid()), "-o", _FORMAT)
    now = time.time()
    try:
        done = subprocess.run(words, env=_env(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return before | {"tried": now, "problem": f"squeue: {error}"}
    if done.returncode:
        reason = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
        return before | {"tried": now, "problem": reason[-1]}
    ours = [line for line in done.stdout.splitlines() if f"|{PREFIX}" in line]
    return {"tried": now, "asked": now, "problem": "", "lines": "\n".join(ours)}


def _ask_ends(jobs: list[str], now: float) -> dict[str, Any]:
    """Return {job: when it was asked for, and the words for it or its elements}; no words where nobody answers."""
    lines = _output("sacct", "-n", "-P", "-X", "-j", ",".join(jobs), "-o", "JobID,State")
    if not lines:
        lines = _output("squeue", "-h", "-r", "-t", "all", "-j", ",".join(jobs), "-o", "%i|%T")
    found: dict[str, Any] = {job: {"asked": now, "words": {}} for job in jobs}
    for element, bar, state in (line.partition("|") for line in (lines or "").splitlines()):
        job, word = element.partition("_")[0], state.partition(" ")[0]
        if bar and job in found and word not in _NO_ENDS:
            found[job]["words"][element] = word
    return found


def _output(*words: str) -> str | None:
    try:
        done = subprocess.run(words, env=_env(), capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _env() -> dict[str, str]:
    """Return an environment in which squeue prints what was asked for, whatever the user has set for himself."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SQUEUE_", "SACCT_"))}
    return kept | {"SLURM_BITSTR_LEN": "0", "SLURM_TIME_FORMAT": "%s"}


@contextlib.contextmanager
def _cache(what: str = "queue") -> Generator[Path]:
    """Hold the file of the last answer for this process; where locks do not work, go on without."""
    folder = user_cache()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    cluster = "\n".join(os.environ.get(name, "") for name in ("SLURM_CONF", "SLURM_CLUSTERS"))
    key = hashlib.sha256(cluster.encode()).hexdigest()[:12]
    path = folder / f"{what}-{os.getuid()}-{key}.json"
    with os.fdopen(os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)) as lock:
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield path


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_uid != os.getuid():
            return {}
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def _write(path: Path, seen: dict[str, Any]) -> None:
    scratch = path.with_suffix(f".{os.getpid()}")
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(seen, file)
    scratch.replace(path)
