"""The commands about sites: profiles, their check, and what their nodes need. Imports are inside the command."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path


def add_commands(add: Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]) -> None:
    """Add the commands; `add(name, function, help)` makes one."""
    add("sites", _sites, "list the site profiles")
    _site_flags(add("site", _site, "write a site profile by asking the cluster"))
    _doctor_flags(add("doctor", _doctor, "check a site: one line a check, with the fix"))
    _prefetch_flags(add("prefetch", _prefetch, "bring an experiment's models and data for nodes without internet"))


def _site_flags(site: argparse.ArgumentParser) -> None:
    site.add_argument("action", choices=("init",))
    site.add_argument("name", nargs="?", help="the profile's name (default: the cluster's)")
    site.add_argument(
        "--out", type=Path, metavar="FILE.toml", help="where to (default: ~/.config/btrm/sites/NAME.toml)"
    )
    site.add_argument("--force", action="store_true", help="overwrite the file")


def _doctor_flags(doctor: argparse.ArgumentParser) -> None:
    doctor.add_argument(
        "--site", metavar="NAME", help="default: $BTRM_SITE, else slurm where there is sbatch, else local"
    )
    doctor.add_argument("--image", metavar="IMAGE", help="an image alone, started on this machine, instead of a site")
    doctor.add_argument("--on-node", action="store_true", help="also from inside a short job, and compare")
    doctor.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs that the job asks for (default 0)")
    doctor.add_argument("--run", type=Path, default=Path("runs"), metavar="DIR", help="where runs are kept")
    doctor.add_argument("--experiment", metavar="NAME", help="offline sites: is what it takes from the hub there?")
    doctor.add_argument("--wait", type=int, default=600, metavar="SECONDS", help="how long a node may take to be free")


def _prefetch_flags(fetch: argparse.ArgumentParser) -> None:
    fetch.add_argument("--experiment", metavar="NAME", required=True)
    fetch.add_argument("--site", metavar="NAME", help="whose cache: HF_HOME in its [env] (default: as for submit)")
    fetch.add_argument("--run", type=Path, metavar="DIR", help="leave out what this run's complete steps took")


def _sites(_: argparse.Namespace) -> int:
    from btrm.launch.site import site_table

    print(site_table())
    return 0


def _site(args: argparse.Namespace) -> int:
    from btrm.operate.site_init import init

    path = init(args.name, args.out, force=args.force)
    name = path if args.out else path.stem
    print(f"{path.read_text()}\nwritten to {path}; now: btrm doctor --site {name}")
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from btrm.operate.doctor import Request, examine

    what = {"site": args.site, "image": args.image, "experiment": args.experiment}
    where = {"run": args.run, "gpus": args.gpus, "on_node": args.on_node, "wait_s": args.wait}
    failed = 0
    for check in examine(Request(**what, **where)):
        print(check, flush=True)
        failed += check.level == "FAIL"
    return 1 if failed else 0


def _prefetch(args: argparse.Namespace) -> int:
    from btrm.environment import load_environment
    from btrm.launch.site import default_site, load_site
    from btrm.operate.prefetch import prefetch

    load_environment(os.environ, Path(".env"))
    for line in prefetch(args.experiment, load_site(args.site or default_site()), args.run):
        print(line, flush=True)
    return 0
