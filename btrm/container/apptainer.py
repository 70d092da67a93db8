"""Apptainer's own command: found, run, and its complaints handed on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import NoReturn

from btrm.config import ConfigError
from btrm.runs import StageError


def need_apptainer() -> str:
    """Return the path of `apptainer`; raise ConfigError where there is none."""
    found = shutil.which("apptainer")
    if found is None:
        raise ConfigError("apptainer is not on PATH: install it, or load its module (module load apptainer)")
    return found


def ask(*words: str) -> subprocess.CompletedProcess[str]:
    """Run `apptainer WORDS` and return what it said; its exit status is the caller's to judge."""
    return subprocess.run([need_apptainer(), *words], capture_output=True, text=True, check=False)


def do(*words: str) -> None:
    """Run `apptainer WORDS` on this terminal (it may ask for a passphrase); raise StageError where it fails."""
    done = subprocess.run([need_apptainer(), *words], check=False)
    if done.returncode:
        raise StageError(f"apptainer {words[0]} failed (exit status {done.returncode}): it has said why above")


def become(command: Sequence[str]) -> NoReturn:
    """Replace this process by a command, so that its exit code and its signals are its own."""
    try:
        os.execvp(command[0], [*command])
    except FileNotFoundError:
        raise ConfigError(f"{command[0]}: no such command here") from None


def complaint(text: str) -> str:
    """Return what apptainer's last FATAL or ERROR line says, else its last line."""
    lines = [line for line in text.splitlines() if line.strip()]
    worst = [line for line in lines if line.startswith(("FATAL:", "ERROR:"))]
    return (worst or lines or ["it said nothing"])[-1].partition(":")[2].strip() or lines[-1]
