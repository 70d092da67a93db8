"""`btrm site init`: a site profile written by asking the cluster, with everything else to choose as comments."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

from btrm.config import ConfigError
from btrm.launch.limits import ClusterLimits, ask_cluster
from btrm.launch.partitions import Partition
from btrm.launch.scontrol import ask, settings
from btrm.launch.site import Site, load_site, own_sites
from btrm.operate.doctor_check import SCRATCH


def init(name: str | None, out: Path | None, *, force: bool = False) -> Path:
    """Write NAME.toml among the user's own profiles, or to `out`; return its path.

    Raises ConfigError for a file that is there already (unless `force`), a name that is none, and without a cluster.
    """
    limits = ask_cluster(Site.build({"name": "new", "executor": "slurm"}))
    config = settings(ask(["scontrol", "show", "config"]))
    name = name or (out.stem if out else config.get("ClusterName", "cluster").lower())
    if not re.fullmatch(r"[\w.-]+", name):
        raise ConfigError(f"site init {name!r}: a name of letters, digits, dot, dash and underscore")
    path = out or own_sites() / f"{name}.toml"
    if path.suffix != ".toml":
        raise ConfigError(f"--out {path}: a site's file ends in .toml")
    if path.exists() and not force:
        raise ConfigError(f"{path}: there already; --force overwrites it, or give another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(profile(limits, config))
    load_site(str(path))
    return path


def profile(limits: ClusterLimits, config: dict[str, str]) -> str:
    """Return the text of a profile for a cluster; `config` is what `scontrol show config` tells."""
    cluster, version = config.get("ClusterName", "?"), config.get("SLURM_VERSION", "?")
    chosen = choose(limits)
    lines = [
        f"# {cluster}, Slurm {version}: written by `btrm site init`; edit it, then `btrm doctor --site` checks it."
    ]
    lines += ["# partition      nodes  GPUs a node             minutes   "]
    lines += [_described(partition, limits) for partition in limits.partitions.values()]
    lines += [
        "",
        'executor = "slurm"',
        _line("partition", chosen.name),
        *_without_gpus(limits, chosen),
        *_account(limits, chosen),
    ]
    lines += [
        *_gpus(chosen, "cons_tres" in config.get("SelectType", "")),
        "",
        *_disk(),
        "",
        *_submitting(limits, chosen),
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def choose(limits: ClusterLimits) -> Partition:
    """Return the default partition if it has GPUs, else the one with most of them that is up and open to the user."""
    if not limits.partitions:
        raise ConfigError("site init: the cluster shows you no partition; ask its owner for access")
    account = limits.accounting.default_account
    usable = [p for p in limits.partitions.values() if p.up and not (p.accounts and account not in p.accounts)]
    candidates = usable or list(limits.partitions.values())
    # GPUs, then the cluster's own choice among those that have any, then the number of GPUs.
    return max(candidates, key=lambda p: (p.gpus > 0, p.default, _all_gpus(p), p.max_time_min is None))


def _all_gpus(partition: Partition) -> int:
    return sum(node.gpus_of(None) for node in partition.members)


def _described(partition: Partition, limits: ClusterLimits) -> str:
    types = ", ".join(f"{partition.gpus_of(kind)} {kind}" for kind in partition.gpu_types) or str(partition.gpus or "-")
    most = "no limit" if partition.max_time_min is None else str(partition.max_time_min)
    notes = [note for note, true in (("default", partition.default), ("not up", not partition.up)) if true]
    if partition.accounts and limits.accounting.default_account not in partition.accounts:
        notes.append(f"for {', '.join(partition.accounts)}")
    return f"#   {partition.name:<13}{partition.nodes:>5}  {types:<22}  {most:<9}{', '.join(notes)}"


def _without_gpus(limits: ClusterLimits, chosen: Partition) -> list[str]:
    """Return, as a comment, where jobs without GPUs could go instead."""
    others = [p.name for p in limits.partitions.values() if p.up and p.members and not p.gpus and p.name != chosen.name]
    return [f"# {_line('cpu_partition', others[0])}    # for jobs without GPUs"] if others and chosen.gpus else []


def _account(limits: ClusterLimits, chosen: Partition) -> list[str]:
    """Return account and qos: set where jobs need them, else as comments."""
    accounting = limits.accounting
    own = sorted({row.account for row in accounting.associations})
    allowed = [name for name in own if not chosen.accounts or name in chosen.accounts]
    default = accounting.default_account
    account = default if default in allowed else next(iter(allowed), None)
    others = f"    # yours: {', '.join(own)}" if len(own) > 1 else ""
    needed = accounting.checked or bool(chosen.accounts)
    lines = [f"{'' if needed else '# '}{_line('account', account)}{others}"] if account else ['# account = "project"']
    levels = sorted({qos for row in accounting.associations if row.account == account for qos in row.qos})
    allowed_qos = [qos for qos in levels if qos in chosen.allowed_qos]
    if allowed_qos:
        return [*lines, _line("qos", allowed_qos[0])]
    return [*lines, f"# qos = {json.dumps(levels[0] if levels else 'normal')}    # yours: {', '.join(levels) or '?'}"]


def _gpus(chosen: Partition, takes_gpus_per_node: bool) -> list[str]:
    """Return how to ask for GPUs: by type where a partition mixes them, since a job would get any."""
    counts = Counter({kind: sum(n.gpus_of(kind) for n in chosen.members) for kind in chosen.gpu_types})
    style = _line("gpu_request", "gpus-per-node" if takes_gpus_per_node else "gres")
    if not chosen.gpus:
        return [f"# {style}    # partition {chosen.name} has no GPUs"]
    if len(counts) > 1:
        most = counts.most_common(1)[0][0]
        return [
            _line("gpu_request", "gres"),
            f"{_line('gpu_type', most)}    # or {', '.join(sorted(set(counts) - {most}))}",
        ]
    return [style, *(f"# {_line('gpu_type', kind)}    # the only type" for kind in counts)]


def _disk() -> list[str]:
    here = [path for path in SCRATCH if Path(path).is_dir()]
    return [
        '# scratch = "$SLURM_TMPDIR"    # node-local disk; `btrm doctor --on-node` shows what a node has'
        + (f", here: {', '.join(here)}" if here else ""),
        "# offline = true               # nodes without internet: `btrm prefetch` brings models and data",
        '# umask = "007"                # a group that shares its runs',
        '# setup = ["module load apptainer"]',
        '# [container] and [env] come last: see the profile "example" (btrm sites shows its file)',
    ]


def _submitting(limits: ClusterLimits, chosen: Partition) -> list[str]:
    lines = [f"# asked now: array indices below {limits.max_array}, {limits.max_jobs} jobs in all"]
    lines[0] += f", {limits.max_submit} of yours" if limits.max_submit else ""
    lines += [f"# could not be asked: {what}" for what in limits.unknown]
    if chosen.submit_nodes:
        allowed = ", ".join(chosen.submit_nodes)
        lines.append(f"submit_from_nodes = false    # partition {chosen.name} takes jobs from {allowed} only")
    return lines


def _line(key: str, value: str) -> str:
    return f"{key} = {json.dumps(value)}"
