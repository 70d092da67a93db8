"""`btrm doctor`: is this site ready? One line a check, with the fix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from btrm.checks import Check
from btrm.config import ConfigError
from btrm.launch.site import Container, Site, default_site, load_site
from btrm.operate.doctor_image import file_checks
from btrm.operate.doctor_image_here import image_here_checks, view
from btrm.operate.doctor_job import node_checks
from btrm.operate.doctor_login import facts, login_checks
from btrm.operate.doctor_node import Facts


@dataclass(frozen=True, slots=True)
class Request:
    """What to examine: a site, or an image without one. `gpus` are those of a node, free in `wait_s`."""

    site: str | None = None
    image: str | None = None
    run: Path = Path("runs")
    gpus: int = 0
    on_node: bool = False
    experiment: str | None = None
    wait_s: int = 600


def examine(request: Request) -> Iterator[Check]:
    """Yield the checks as they are done; raise ConfigError for a site or an experiment that is none."""
    run = request.run.absolute()
    if request.image is not None:
        yield from _image_alone(request.image, run, request)
        return
    site = load_site(request.site or default_site())
    here = facts(site, run)
    failed = False
    for check in login_checks(site, here, request.gpus, request.experiment):
        failed |= check.level == "FAIL" and check.what.startswith(("Slurm", site.name))
        yield check
    if site.container is not None:
        yield from _image(site, site.container, here, request)
    if not request.on_node:
        return
    if site.executor != "slurm":
        yield Check("OK", f"site {site.name} runs on this machine: there is no other node")
    elif failed:
        yield Check("FAIL", "node: not asked, since no job can start", "first what is said above")
    else:
        yield from node_checks(site, here, run, request.gpus, request.wait_s)


def _image(site: Site, container: Container, here: Facts, request: Request) -> Iterator[Check]:
    """Yield what can be told of a site's image here, where no GPU is asked for; a node that is asked tells the rest."""
    lines = list(file_checks(container))
    yield from lines
    if not request.on_node and all(line.level != "FAIL" for line in lines):
        yield from image_here_checks(site, here, request.run.absolute(), 0, absent="WARN")


def _image_alone(image: str, run: Path, request: Request) -> Iterator[Check]:
    """Yield what can be told of an image without a site."""
    if request.site or request.on_node:
        raise ConfigError("--image is looked at on this machine: without --site and --on-node")
    site = view(image)
    assert site.container is not None
    lines = list(file_checks(site.container))
    yield from lines
    if all(line.level != "FAIL" for line in lines):
        yield from image_here_checks(site, facts(site, run), run, request.gpus, absent="FAIL")
