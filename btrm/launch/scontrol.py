"""What Slurm's commands print, as values: `scontrol -o`, `sacctmgr -nP`, `squeue -h`, of 22.05 to 24.11."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from btrm.launch.secrecy import is_secret

_KEY = re.compile(r"(?:^|\s)([A-Za-z][\w:/]*)=")
_FILTERS = ("SQUEUE_", "SINFO_", "SACCT_")
_ENDLESS = frozenset({"", "UNLIMITED", "INFINITE", "NONE", "N/A", "(null)", "Partition_Limit"})
TIMEOUT_S = 30.0


class NotAnsweredError(RuntimeError):
    """A command is missing, failed or said nothing in time; the message says which and why."""


def ask(words: Sequence[str], timeout_s: float = TIMEOUT_S) -> str:
    """Return what a command prints. The user's own squeue and sinfo filters do not reach it, nor do secrets.

    Raises NotAnsweredError.
    """
    hidden = [n for n, v in os.environ.items() if n.startswith(_FILTERS) or is_secret(n, v)]
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, check=False, env=env)
    except FileNotFoundError:
        raise NotAnsweredError(f"{words[0]}: not on PATH") from None
    except subprocess.TimeoutExpired:
        raise NotAnsweredError(f"{words[0]}: no answer in {timeout_s:.0f} s") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise NotAnsweredError(f"{' '.join(words)}: {said[-1] if said else f'exit status {done.returncode}'}")
    return done.stdout


def ask_all(*commands: Sequence[str]) -> list[str]:
    """Return what several commands print, asked at once: sacctmgr alone takes 0.2 s. Raises NotAnsweredError."""
    with ThreadPoolExecutor(len(commands)) as pool:
        return list(pool.map(ask, commands))


def records(text: str) -> Iterator[dict[str, str]]:
    """Yield the {key: value} of each line of `scontrol -o`; values may hold spaces, the first of a key counts."""
    for line in text.splitlines():
        found = list(_KEY.finditer(line))
        ends = [*(match.start() for match in found[1:]), len(line)]
        values: dict[str, str] = {}
        for match, end in zip(found, ends, strict=bool(found)):
            values.setdefault(match[1], line[match.end() : end].strip())
        if values:
            yield values


def settings(text: str) -> dict[str, str]:
    """Return the {key: value} of `scontrol show config`."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def gpus(gres: str) -> dict[str, int]:
    """Return {type: count} of a Gres field; the type is '' where the cluster names none.

    >>> gpus("gpu:h100:4(S:0-1),gpu:a100:2,shard:8")
    {'h100': 4, 'a100': 2}
    """
    counts: dict[str, int] = {}
    for item in re.sub(r"\([^)]*\)", "", gres).split(","):
        name, *rest = item.strip().split(":")
        if name == "gpu":
            count = rest.pop() if rest and rest[-1].isdigit() else "1"
            kind = rest[0] if rest else ""
            counts[kind] = counts.get(kind, 0) + int(count)
    return counts


def minutes(text: str) -> int | None:
    """Return a time limit (`days-hours:minutes:seconds`, `hours:minutes:seconds`, `minutes`); None: there is none."""
    if text in _ENDLESS:
        return None
    days, dash, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if dash:  # days-hours[:minutes[:seconds]]
        hours, mins = (*parts, 0)[:2]
        return int(days) * 1440 + hours * 60 + mins
    return parts[0] * 60 + parts[1] if len(parts) == 3 else parts[0]


def number(text: str | None) -> int | None:
    """Return a count, or None where Slurm says that there is no limit."""
    found = re.match(r"\d+", text or "")
    return int(found[0]) if found else None


def names(text: str) -> tuple[str, ...]:
    """Return a comma list; empty where Slurm says ALL or nothing."""
    return () if text in {"ALL", "N/A", "(null)"} else tuple(name for name in text.split(",") if name)
