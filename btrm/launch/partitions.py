"""Partitions and what their nodes have."""

from __future__ import annotations

from dataclasses import dataclass

from btrm.launch.scontrol import gpus, minutes, names, number, records

_AWAY = frozenset({"DOWN", "DRAIN", "DRAINED", "DRAINING", "FAIL", "FAILING", "NOT_RESPONDING"})


@dataclass(frozen=True, slots=True)
class Node:
    """What one node has. Memory is in GB; `gpus` counts by type, '' where types have no names. `up`: it takes jobs."""

    cpus: int
    mem_gb: float
    gpus: dict[str, int]
    features: tuple[str, ...] = ()
    name: str = ""
    up: bool = True

    def gpus_of(self, kind: str | None) -> int:
        """Return how many GPUs of a type one node gives, of any type for None."""
        return sum(self.gpus.values()) if kind is None else self.gpus.get(kind, 0)


@dataclass(frozen=True, slots=True)
class Partition:
    """A queue. `max_time_min` None: no limit. `members` is empty where the cluster hides its nodes.

    `submit_nodes`: the only nodes that may submit to it; empty where all may.
    """

    name: str
    max_time_min: int | None
    nodes: int
    max_nodes: int | None
    members: tuple[Node, ...]
    default: bool
    up: bool
    qos: str | None = None
    accounts: tuple[str, ...] = ()
    allowed_qos: tuple[str, ...] = ()
    submit_nodes: tuple[str, ...] = ()

    @property
    def cpus(self) -> int:
        """The most CPUs that one node has."""
        return max((node.cpus for node in self.members), default=0)

    @property
    def mem_gb(self) -> float:
        """The most memory that one node gives, in GB."""
        return max((node.mem_gb for node in self.members), default=0.0)

    @property
    def gpus(self) -> int:
        """The most GPUs that one node has."""
        return self.gpus_of(None)

    @property
    def gpu_types(self) -> tuple[str, ...]:
        """The named GPU types of its nodes."""
        return tuple(sorted({kind for node in self.members for kind in node.gpus if kind}))

    @property
    def features(self) -> tuple[str, ...]:
        """What a constraint may name here."""
        return tuple(sorted({feature for node in self.members for feature in node.features}))

    def gpus_of(self, kind: str | None) -> int:
        """Return the most GPUs of a type (None: any) that one node has."""
        return max((node.gpus_of(kind) for node in self.members), default=0)


def read_partitions(partitions: str, nodes: str) -> dict[str, Partition]:
    """Return {name: partition} of what `scontrol -o show partition` and `… show node` print."""
    members: dict[str, list[Node]] = {}
    for record in records(nodes):
        for name in names(record.get("Partitions", "")):
            members.setdefault(name, []).append(_node(record))
    found: dict[str, Partition] = {}
    for record in records(partitions):
        name = record.get("PartitionName", "")
        found[name] = Partition(
            name=name,
            max_time_min=minutes(record.get("MaxTime", "")),
            nodes=number(record.get("TotalNodes")) or 0,
            max_nodes=number(record.get("MaxNodes")),
            members=tuple(members.get(name, ())),
            default=record.get("Default") == "YES",
            up=record.get("State", "UP") == "UP",
            qos=next(iter(names(record.get("QoS", ""))), None),
            accounts=names(record.get("AllowAccounts", "ALL")),
            allowed_qos=names(record.get("AllowQos", "ALL")),
            submit_nodes=names(record.get("AllocNodes", "ALL")),
        )
    return found


def _node(record: dict[str, str]) -> Node:
    memory = (number(record.get("RealMemory")) or 0) - (number(record.get("MemSpecLimit")) or 0)
    cpus = number(record.get("CPUEfctv")) or number(record.get("CPUTot")) or 1
    features = names(record.get("AvailableFeatures", ""))
    name, up = record.get("NodeName", ""), _is_up(record.get("State", ""))
    return Node(cpus, memory / 1024, gpus(record.get("Gres", "")), features, name, up)


def _is_up(state: str) -> bool:
    """Say whether a node in this state (`IDLE+CLOUD`, `DOWN*+DRAIN`) takes jobs; one that is powered down is woken."""
    return "*" not in state and _AWAY.isdisjoint(state.upper().split("+"))
