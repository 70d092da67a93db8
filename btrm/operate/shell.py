"""An interactive shell on a node of a site, in the site's image where it has one."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from btrm.config import ConfigError
from btrm.container.run import prepared
from btrm.launch.runtime import exec_words, pyxis_words
from btrm.launch.sbatch import gpu_parameters
from btrm.launch.site import Site
from btrm.runs import Resources


def shell_command(site: Site, needs: Resources) -> list[str]:
    """Return the srun command; raise ConfigError where the site is no cluster, or its image is amiss."""
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
    return ["srun", *(f"--{name}={value}" for name, value in asked.items()), *_started(site)]


def _started(site: Site) -> list[str]:
    """Return what starts the shell on the node: after the site's set-up, in its image, with what its jobs have."""
    if (image := site.container) is None:
        exports = [f"export {name}={shlex.quote(value)}" for name, value in site.env.items()]
        return ["--pty", *_shell([*site.setup, *exports], ["bash"])]
    cwd, (places, lines) = Path.cwd(), prepared(site, None)
    if image.runtime == "pyxis":  # srun starts the image, and what follows is inside, where there are no modules
        binds = [*dict.fromkeys([*image.binds, *places, str(cwd)])]
        return [*pyxis_words(image, binds, cwd), "--pty", *_shell(lines, ["bash"])]
    return ["--pty", *_shell([*site.setup, *lines], exec_words(image, places, cwd, ["bash"]))]


def _shell(lines: list[str], shell: list[str]) -> list[str]:
    return ["bash", "-c", "; ".join([*lines, f"exec {shlex.join(shell)}"])] if lines else shell


def open_shell(command: list[str]) -> None:
    """Become the shell; raise ConfigError where there is no srun."""
    try:
        os.execvp(command[0], command)
    except FileNotFoundError:
        raise ConfigError("srun is not on PATH: this is no Slurm machine") from None
