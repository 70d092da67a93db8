"""Site profiles: where jobs run and with which environment. `slurm/sites/NAME.toml`, or a user's own file by path."""

from __future__ import annotations

import os
import subprocess
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import Field

from btrm.config import Config, ConfigError, nearest
from btrm.plugins import shipped
from btrm.runs import Resources

Executor = Literal["inline", "local"]


class Site(Config):
    """How to get resources here. `env` holds paths and switches for the jobs, never secrets."""

    name: str
    executor: Executor = "inline"
    env: dict[str, str] = Field(default_factory=dict)


def site_files() -> dict[str, Path]:
    """Return {name: file} of the profiles that ship."""
    return {path.stem: path for path in sorted((shipped("slurm") / "sites").glob("*.toml"))}


def load_site(name: str) -> Site:
    """Return a profile by name or by the path of a .toml file; raise ConfigError for what it gets wrong."""
    path = Path(name).expanduser() if name.endswith(".toml") else site_files().get(name)
    if path is None or not path.is_file():
        raise ConfigError(f"site {name!r}: no such profile{nearest(name, site_files())}")
    try:
        values = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    return Site.build({"name": path.stem, **values}, str(path))


def visible_gpus() -> int:
    """Return how many GPUs this machine offers to this process."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip()])
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listing.stdout.splitlines())


def check_resources(resources: Resources) -> list[str]:
    """Return what this one machine cannot give, one line each."""
    problems: list[str] = []
    if resources.nodes > 1:
        problems.append(f"--nodes {resources.nodes}: this site is one machine")
    if resources.gpus and resources.gpus > (seen := visible_gpus()):
        cpu = "; --gpus 0 runs on the CPU" if seen == 0 else ""
        problems.append(
            f"--gpus {resources.gpus}: this machine shows {seen} GPUs (nvidia-smi, CUDA_VISIBLE_DEVICES){cpu}"
        )
    return problems
