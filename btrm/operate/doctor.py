"""`btrm doctor`: is this site ready? One line a check, with the fix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from btrm.checks import Check
from btrm.launch.site import load_site
from btrm.operate.doctor_job import node_checks
from btrm.operate.doctor_login import facts, login_checks


@dataclass(frozen=True, slots=True)
class Request:
    """What to examine. `gpus` are those of one node; `wait_s` is how long a node may take to become free."""

    site: str
    run: Path = Path("runs")
    gpus: int = 0
    on_node: bool = False
    experiment: str | None = None
    wait_s: int = 600


def examine(request: Request) -> Iterator[Check]:
    """Yield the checks as they are done; raise ConfigError for a site or an experiment that is none."""
    site = load_site(request.site)
    run = request.run.absolute()
    here = facts(site, run)
    failed = False
    for check in login_checks(site, here, request.gpus, request.experiment):
        failed |= check.level == "FAIL" and check.what.startswith(("Slurm", site.name))
        yield check
    if not request.on_node:
        return
    if site.executor != "slurm":
        yield Check("OK", f"site {site.name} runs on this machine: there is no other node")
    elif failed:
        yield Check("FAIL", "node: not asked, since no job can start", "first what is said above")
    else:
        yield from node_checks(site, here, run, request.gpus, request.wait_s)
