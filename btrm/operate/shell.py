"""An interactive shell on a node of a site, in the site's image where it has one."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from btrm.config import ConfigError
from btrm.launch.sbatch import container_prefix, gpu_parameters
from btrm.launch.site import Site
from btrm.launch.submission import Plan
from btrm.runs import Resources


def shell_command(site: Site, needs: Resources) -> list[str]:
    """Return the srun command; raise ConfigError where the site is no cluster."""
    if site.executor != "slurm":
        raise ConfigError(f'site {site.name}: executor = "{site.executor}": a shell needs no cluster here')
    site = site.seen_by(needs.gpus)
    optional = {
        "partition": site.partition,
        "account": site.account,
        "qos": site.qos,
        "constraint": site.constraint,
        "mem": f"{needs.mem_gb}G" if site.request_memory else None,
    }
    asked = {
        "job-name": "btrm-shell",
        "nodes": str(needs.nodes),
        "ntasks": str(needs.nodes),
        "cpus-per-task": str(needs.cpus),
        "time": str(needs.time_min),
        **{name: value for name, value in optional.items() if value},
        **{name.replace("_", "-"): value for name, value in gpu_parameters(needs, site).items()},
        **site.slurm,
    }
    return ["srun", *(f"--{name}={value}" for name, value in asked.items()), "--pty", *_inside(site)]


def _inside(site: Site) -> list[str]:
    """Return the shell as it is started on the node: after the site's set-up, in its image."""
    setup = [*site.setup, *(f"export {name}={shlex.quote(value)}" for name, value in site.env.items())]
    shell = ["bash"]
    if site.container is not None:
        here = Plan(root=str(Path.cwd()), steps=(), env=site.env)
        shell = [*container_prefix(site.container, here)[:-1], "bash"]
    if not setup:
        return shell
    return ["bash", "-c", "; ".join([*setup, f"exec {shlex.join(shell)}"])]


def open_shell(command: list[str]) -> None:
    """Become the shell; raise ConfigError where there is no srun."""
    try:
        os.execvp(command[0], command)
    except FileNotFoundError:
        raise ConfigError("srun is not on PATH: this is no Slurm machine") from None
