"""What a cluster's jobs lack to ask an API: internet, and a key that they can read."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from btrm.config import read_env_file
from btrm.launch.plan import Experiment, Step
from btrm.launch.site import Site
from btrm.runs import RunPaths, read_manifest
from btrm.teacher.config import APIS, TeacherConfig
from btrm.teacher.keys import VARIABLES, needs_key, on_own_network


def api_problems(experiment: Experiment, root: Path, site: Site, dotenv: Path = Path(".env")) -> list[str]:
    """Return why jobs of steps that are not complete could not ask their API, with what to do, a line each."""
    todo = [step for step in experiment.steps if read_manifest(RunPaths(root).stage(step.key)) is None]
    return [problem for step in todo for problem in _problems(step, root, site, dotenv)]


def _problems(step: Step, root: Path, site: Site, dotenv: Path) -> Iterator[str]:
    config = step.config
    if not isinstance(config, TeacherConfig) or config.backend not in APIS:
        return
    if site.offline and not on_own_network(config):
        yield (
            f"{step.key}: the nodes of site {site.name} have no internet, and backend {config.backend} is out there; "
            f"ask from this machine ({_inline(step, root)}, with the same settings), or take --backend vllm, which "
            "runs on the job's own GPUs"
        )
    names = VARIABLES[config.backend]
    known = read_env_file(dotenv) if dotenv.is_file() else {}
    if config.api_key_file is None and needs_key(config) and not any(known.get(name) for name in names):
        yield (
            f"{step.key}: jobs are not handed secrets of this shell's environment, so they would have no key; write "
            f"{names[0]}=… into .env (mode 0600) in this directory, or give --api-key-file FILE (mode 0600)"
        )


def _inline(step: Step, root: Path) -> str:
    name = [] if step.key == step.stage else ["--name", step.key]
    where = ["--run", str(root), *name, "--site", "local", "--executor", "inline"]
    return shlex.join(["python", "-m", "btrm.submit", step.stage, *where])
