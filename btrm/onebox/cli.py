"""`btrm cluster`: a real Slurm on this machine, to rehearse an experiment with faults before it costs GPU-hours."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from btrm.config import ConfigError, nearest
from btrm.onebox.box import ClusterError, OneBox
from btrm.onebox.faults import FAULTS


def main(argv: Sequence[str]) -> int:
    """Run a command; return its exit status (2: the request was wrong)."""
    args = _parser().parse_args(list(argv) or ["--help"])
    try:
        return args.function(args)
    except (ConfigError, ClusterError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="btrm cluster",
        description=f"{__doc__} Needs Debian's or Ubuntu's slurmctld, slurmd, slurm-client and munge; no root.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument("--dir", type=Path, default=_default_folder(), help="the cluster's folder (%(default)s)")
    up = commands.add_parser("up", parents=[folder], help="start it; it runs until `down`")
    up.set_defaults(function=_up)
    _add_sizes(up)
    for name, function, text in (("down", _down, "end it and all of its jobs"), ("status", _status, "what runs")):
        commands.add_parser(name, parents=[folder], help=text).set_defaults(function=function)
    run = commands.add_parser("exec", parents=[folder], help="run a command against it (sets SLURM_CONF)")
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="CMD…")
    run.set_defaults(function=_exec)
    faults = "\n".join(f"  {name:<16}{fault.target:<8}{fault.summary}" for name, fault in FAULTS.items())
    fail = commands.add_parser(
        "fail",
        parents=[folder],
        help="let something go wrong, or take it back",
        description=f"faults:\n{faults}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    fail.add_argument("fault", choices=FAULTS, metavar="FAULT")
    fail.add_argument("target", nargs="?", default="", metavar="NODE|JOB")
    fail.set_defaults(function=_fail)
    return parser


def _add_sizes(up: argparse.ArgumentParser) -> None:
    up.add_argument("--nodes", type=int, default=4, help="how many (%(default)s)")
    up.add_argument("--gpus", type=int, default=8, help="GPUs of a node, which are names only (%(default)s)")
    up.add_argument("--cpus", type=int, default=8, help="CPUs of a node, which are only counted (%(default)s)")
    up.add_argument("--mem-gb", type=int, default=1024, help="memory of a node, only counted (%(default)s)")
    up.add_argument("--accounting", action="store_true", help="with slurmdbd on a small MariaDB: sacct, limits")
    up.add_argument("--node-names", help="instead of n1,n2,…; 127.0.0.1,127.0.0.2 also resolve, for torch's rendezvous")
    up.add_argument("--max-array", type=int, default=1001, help="MaxArraySize (%(default)s)")
    up.add_argument("--max-time", default="INFINITE", help="MaxTime of the partitions low and high (%(default)s)")
    up.add_argument("--kill-wait", type=int, default=10, help="seconds from SIGTERM to SIGKILL (%(default)s)")
    up.add_argument("--grace", type=int, default=0, help="seconds that a preempted job has left (%(default)s)")


def _default_folder() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "btrm" / "cluster"


def _open(folder: Path) -> OneBox:
    box = OneBox.open(folder)
    if not box.daemons:
        raise ConfigError(f"{folder}: the cluster is down; btrm cluster up starts one")
    return box


def _up(args: argparse.Namespace) -> int:
    box = OneBox(
        args.dir,
        nodes=args.nodes,
        gpus=args.gpus,
        cpus=args.cpus,
        mem_gb=args.mem_gb,
        accounting=args.accounting,
        node_names=args.node_names.split(",") if args.node_names else None,
        max_array=args.max_array,
        max_time=args.max_time,
        kill_wait_s=args.kill_wait,
        grace_s=args.grace,
    )
    if box.daemons:
        print(f"up already, as it was started (btrm cluster down ends it): {_size(_open(args.dir))}")
    else:
        print(f"up: {_size(box.start())}")
    where = "" if args.dir == _default_folder() else f" --dir {args.dir}"
    print(f"export SLURM_CONF={box.conf}")
    print(f"or: btrm cluster exec{where} python -m btrm.submit … --site onebox")
    return 0


def _size(box: OneBox) -> str:
    kind = "with" if box.accounting else "without"
    return f"{box.nodes} nodes of {box.gpus} GPUs ({', '.join(box.names)}), {kind} accounting, in {box.root}"


def _down(args: argparse.Namespace) -> int:
    OneBox.open(args.dir).stop()
    print(f"down; logs in {args.dir / 'log'}")
    return 0


def _status(args: argparse.Namespace) -> int:
    box = _open(args.dir)
    print(_size(box))
    dead = [name for name in box.daemon_names if name not in box.daemons]
    print(f"daemons: {', '.join(box.daemons)}{'; dead: ' + ', '.join(dead) if dead else ''}")
    if "slurmctld" not in dead:
        print(box.run("sinfo", "-N", "-p", "low", "-O", "NodeList:16,StateCompact:12,Gres:20,GresUsed:24,Reason:30"))
        print(box.run("squeue"))
    return 0


def _exec(args: argparse.Namespace) -> int:
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise ConfigError("btrm cluster exec CMD…: which command?")
    box = _open(args.dir)
    try:
        os.execvpe(command[0], command, os.environ | box.env)
    except FileNotFoundError:
        raise ConfigError(
            f"{command[0]}: no such command{nearest(command[0], ['python', 'sbatch', 'squeue'])}"
        ) from None


def _fail(args: argparse.Namespace) -> int:
    fault = FAULTS[args.fault]
    if bool(args.target) != bool(fault.target) and fault.target != "[NODE]":
        raise ConfigError(f"usage: btrm cluster fail {args.fault} {fault.target}".rstrip())
    print(fault.inflict(_open(args.dir), args.target))
    return 0
