"""What a cluster allows, asked of the cluster itself, and what a step asks for that it cannot have."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from btrm.config import ConfigError, nearest
from btrm.launch.accounts import Accounting, ask_accounting
from btrm.launch.partitions import Node, Partition, read_partitions
from btrm.launch.scontrol import NotAnsweredError, ask, ask_all, number, settings
from btrm.launch.site import Site
from btrm.runs import Resources


class NoClusterError(ConfigError):
    """No Slurm answers here, so nothing about it could be checked; the message says why."""


@dataclass(frozen=True, slots=True)
class ClusterLimits:
    """What the cluster allows this user now.

    Array indices must be < `max_array`; `queued` counts array elements one by one. `max_submit` and `max_time_min`
    are the association's and the qos's, None where there is no such limit. `unknown` says what could not be asked.
    """

    max_array: int
    max_jobs: int
    max_submit: int | None
    queued: int
    partitions: dict[str, Partition]
    max_time_min: int | None = None
    accounting: Accounting = field(default_factory=Accounting)
    unknown: list[str] = field(default_factory=list[str])

    @property
    def default_partition(self) -> str | None:
        """The partition that a job gets which names none."""
        return next((name for name, found in self.partitions.items() if found.default), None)

    @property
    def room(self) -> int:
        """How many jobs more this user may submit now, array elements counted."""
        return max(0, min(self.max_jobs, self.max_submit or self.max_jobs) - self.queued)

    def asked(self, site: Site) -> list[str]:
        """Return the partitions that a job asks for: any of `a,b` may serve it, the default where none is named."""
        return [name for name in (site.partition or self.default_partition or "").split(",") if name]

    def longest_min(self, site: Site) -> int | None:
        """Return the most minutes that a job may ask for in the partitions it names; None where nothing tells."""
        known = [self.partitions[name].max_time_min for name in self.asked(site) if name in self.partitions]
        longest = [most for most in known if most is not None]
        bounds = [max(longest)] if longest and len(longest) == len(known) else []
        return min([*bounds, *([self.max_time_min] if self.max_time_min is not None else [])], default=None)

    def nodes_left(self, site: Site, without: Collection[str]) -> int:
        """Return how many nodes that are up a job would find, were these left out."""
        known = [self.partitions[name] for name in self.asked(site) if name in self.partitions]
        members = [node for partition in known for node in partition.members]
        if not members:  # hidden
            return sum(partition.nodes for partition in known) - len(without)
        return len({node.name for node in members if node.up} - set(without))


def ask_cluster(site: Site) -> ClusterLimits:
    """Ask scontrol, squeue and, where there is accounting, sacctmgr; the site's own `limits` win.

    Raises NoClusterError where scontrol does not answer: there is nothing to submit to.
    """
    try:
        listing = ["scontrol", "-o", "show"]
        shown, partitions, nodes = ask_all(["scontrol", "show", "config"], [*listing, "partition"], [*listing, "node"])
    except NotAnsweredError as error:
        raise NoClusterError(f"site {site.name} could not be checked: no Slurm answers here ({error})") from None
    config, found = settings(shown), read_partitions(partitions, nodes)
    unknown: list[str] = []
    accounting = ask_accounting(config, unknown)
    default = next((name for name, partition in found.items() if partition.default), None)
    used = found.get(site.partition or default or "")
    bounds = accounting.bounds(site, used.qos if used else None)
    return ClusterLimits(
        max_array=site.limits.max_array or _max_array(config),
        max_jobs=site.limits.max_jobs or number(config.get("MaxJobCount")) or 10000,
        max_submit=site.limits.max_submit or bounds.max_submit,
        queued=_queued(unknown),
        partitions=found,
        max_time_min=bounds.max_time_min,
        accounting=accounting,
        unknown=unknown,
    )


def _max_array(config: Mapping[str, str]) -> int:
    """Return the bound of array indices: MaxArraySize, or `max_array_tasks` where the scheduler allows fewer."""
    size = number(config.get("MaxArraySize")) or 1001
    parameters = settings(config.get("SchedulerParameters", "").replace(",", "\n"))
    return min(size, number(parameters.get("max_array_tasks")) or size)


def _queued(unknown: list[str]) -> int:
    try:
        return len(ask(["squeue", "--me", "-r", "-h", "-o", "%i"]).split())
    except NotAnsweredError as error:
        unknown.append(f"how many of your jobs are queued: {error}")
        return 0


def check(limits: ClusterLimits, site: Site, resources: Resources, what: str) -> list[str]:
    """Return everything that a step asks for and cannot have here, each with its value and what is valid.

    Several partitions (`a,b`) are one request that any of them may serve.
    """
    site = site.seen_by(resources.gpus)
    asked = limits.asked(site)
    known = [limits.partitions[name] for name in asked if name in limits.partitions]
    valid = [*limits.partitions]
    problems = [f"partition {n!r}: none that you may use{nearest(n, valid)}" for n in asked if n not in valid]
    if not asked:
        problems.append(f"partition: none given, and the cluster has no default; valid: {', '.join(sorted(valid))}")
    faults = [_beyond(partition, site, resources) for partition in known]
    if all(faults):
        problems += [line for lines in faults for line in lines]
    if limits.max_time_min is not None and resources.time_min > limits.max_time_min:
        problems.append(f"--time {resources.time_min}: your account or qos allows {limits.max_time_min} minutes")
    problems += _account(limits.accounting, site, known)
    return [f"{what}: {line}" for line in problems]


def _beyond(partition: Partition, site: Site, resources: Resources) -> list[str]:
    """Return what one partition cannot give; no single fault, but too few nodes that have it all, is a fault too."""
    name = partition.name
    problems: list[str] = [] if partition.up else [f"partition {name}: not up now"]
    if partition.max_time_min is not None and resources.time_min > partition.max_time_min:
        problems.append(f"--time {resources.time_min}: partition {name} allows {partition.max_time_min} minutes")
    most = min(partition.nodes, partition.max_nodes or partition.nodes)
    if resources.nodes > most:
        problems.append(f"--nodes {resources.nodes}: partition {name} gives at most {most}")
    if not partition.members:  # hidden nodes: sbatch is the judge
        return problems
    problems += [*_unknown_features(partition, site.constraint or ""), *_beyond_a_node(partition, site, resources)]
    fitting = sum(_fits(node, site, resources) for node in partition.members)
    if not problems and fitting < resources.nodes:
        need = f"{resources.gpus} GPUs, {resources.cpus} CPUs and {resources.mem_gb} GB"
        problems.append(f"--nodes {resources.nodes}: {fitting} of partition {name} have {need} together")
    return problems


def _unknown_features(partition: Partition, constraint: str) -> list[str]:
    """Return what a constraint (`a100&(nvme|ssd)`, `[rack1*2&rack2*2]`) names that no node of the partition has."""
    asked = re.findall(r"[^&|()\[\],!*\s]+", re.sub(r"\*\d+", "", constraint))
    return [
        f"constraint {name!r}: no node of partition {partition.name} has it{nearest(name, partition.features)}"
        for name in asked
        if name not in partition.features
    ]


def _beyond_a_node(partition: Partition, site: Site, resources: Resources) -> list[str]:
    problems: list[str] = []
    where = f"a node of partition {partition.name}"
    kind = site.gpu_type if resources.gpus else None
    if kind and kind not in partition.gpu_types:
        types = nearest(kind, partition.gpu_types) if partition.gpu_types else "; it names no types"
        problems.append(f"gpu_type {kind!r}: partition {partition.name} has none{types}")
    elif resources.gpus > (most := partition.gpus_of(kind)):
        has = f"has at most {most}{f' {kind}' if kind else ''}" if most else "has none"
        problems.append(f"--gpus {resources.gpus}: {where} {has}")
    if resources.cpus > partition.cpus:
        problems.append(f"--cpus {resources.cpus}: {where} has at most {partition.cpus}")
    if site.request_memory and resources.mem_gb > partition.mem_gb:
        problems.append(f"--mem-gb {resources.mem_gb}: {where} gives at most {int(partition.mem_gb)}")
    return problems


def _fits(node: Node, site: Site, resources: Resources) -> bool:
    memory = not site.request_memory or resources.mem_gb <= node.mem_gb
    return memory and resources.cpus <= node.cpus and resources.gpus <= node.gpus_of(site.gpu_type)


def _account(accounting: Accounting, site: Site, partitions: list[Partition]) -> list[str]:
    """Return what is wrong with account and qos, as far as the cluster keeps, enforces and tells them."""
    account = site.account or accounting.default_account
    problems: list[str] = []
    if accounting.checked:
        own = sorted({row.account for row in accounting.associations})
        levels = {qos for row in accounting.associations if row.account == account for qos in row.qos}
        if account not in own:
            valid = f"; yours: {', '.join(own)}" if own else "; you have none on this cluster"
            problems.append(f"account {account!r}: not yours{valid}")
        elif site.qos and levels and site.qos not in levels:
            problems.append(f"qos {site.qos!r}: account {account} has none such{nearest(site.qos, levels)}")
    if site.qos and accounting.qos and site.qos not in accounting.qos:
        problems.append(f"qos {site.qos!r}: no such qos{nearest(site.qos, accounting.qos)}")
    for partition in partitions:
        if account and partition.accounts and account not in partition.accounts:
            problems.append(f"account {account!r}: partition {partition.name} takes {', '.join(partition.accounts)}")
        if site.qos and partition.allowed_qos and site.qos not in partition.allowed_qos:
            problems.append(f"qos {site.qos!r}: partition {partition.name} takes {', '.join(partition.allowed_qos)}")
    return problems
