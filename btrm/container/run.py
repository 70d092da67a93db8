"""`btrm container exec` and `shell`: a command in an image on this machine, as a site's jobs would see it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from btrm.config import ConfigError
from btrm.container.apptainer import become
from btrm.launch.runtime import exec_words, image_problems, image_sha256, unset_line
from btrm.launch.sbatch import bound, job_environment
from btrm.launch.site import Site, load_site
from btrm.launch.submission import Plan, submissions
from btrm.runs import user_cache

# What NVIDIA's kernel driver leaves: without it --nv finds nothing, and apptainer says so.
_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class Inside:
    """A command in an image: the shell lines around it, and itself."""

    setup: tuple[str, ...]
    command: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([*self.setup, shlex.join(self.command)])

    @property
    def words(self) -> list[str]:
        """The words to run: the shell gives its place to the command, so signals and the exit code are its own."""
        return ["bash", "-c", "\n".join([*self.setup, f"exec {shlex.join(self.command)}"])]

    def become(self) -> NoReturn:
        """Replace this process by the command."""
        become(self.words)


def image_site(image: Path) -> Site:
    """Return a site for an image alone, without binds of its own, for where there is no profile."""
    if not image.exists():
        raise ConfigError(f"{image}: no such image (a site's own: --site NAME)")
    container = {"image": str(image.absolute()), "nv": _DRIVER.exists(), "unpinned": True}
    return Site.build({"name": "image", "executor": "slurm", "container": container})


def container_site(name: str) -> Site:
    """Return a site by name; raise ConfigError where it has no image."""
    site = load_site(name)
    if site.container is None:
        raise ConfigError(f"site {name}: has no [container]; name an image: btrm container exec IMAGE CMD…")
    return site


def inside(site: Site, command: Sequence[str], run: Path | None) -> Inside:
    """Return a command in a site's image, with what its jobs have: set-up, variables, binds, caches.

    The current folder is there too and is where the command starts. `run` is a run whose folder, code and caches are
    used; without one the image's own btrm is, and caches lie in the user's. Raises ConfigError where the image is not
    there, or is not the one that the site pins.
    """
    assert site.container is not None
    places, lines = prepared(site, run)
    words = exec_words(site.container, places, Path.cwd(), command)
    return Inside((*site.setup, *lines), tuple(words))


def prepared(site: Site, run: Path | None) -> tuple[list[str], list[str]]:
    """Return what a command in a site's image has bound, and the shell lines that set what its jobs have set.

    Raises ConfigError where the image is not there, or is not the one that the site pins.
    """
    assert site.container is not None
    if problems := image_problems(site):
        raise ConfigError("\n".join(problems))
    plan = _plan(site, run).model_copy(update={"image_sha256": image_sha256(site.container)})
    exports = [f"export {name}={shlex.quote(value)}" for name, value in job_environment(site, plan).items()]
    return bound(plan), [unset_line(site.container), *exports]


def _plan(site: Site, run: Path | None) -> Plan:
    """Return what a run's jobs were last handed, less their steps; without a run, a place for caches."""
    if run is None:
        root = user_cache() / "container"
        root.mkdir(parents=True, exist_ok=True)
        return Plan(root=str(root), steps=(), env=site.env)
    if not run.is_dir():
        raise ConfigError(f"--run {run}: no such folder")
    sent = submissions(run)
    code = sent[-1].plan().model_dump(include={"code", "code_digest"}) if sent else {}
    return Plan(root=str(run.absolute()), steps=(), env=site.env, **code)
