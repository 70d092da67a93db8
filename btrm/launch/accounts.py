"""Accounts, qos and the limits that hang on them, where the cluster keeps any."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from btrm.launch.scontrol import NotAnsweredError, ask_all, minutes, names, number
from btrm.launch.site import Site

_ASSOCIATION = "account,partition,maxsubmitjobs,grpsubmitjobs,maxwall,qos,defaultqos"
_QOS = "name,maxsubmitjobsperuser,maxsubmitjobsperaccount,grpsubmitjobs,maxwall"
_ENFORCE_LIMITS = frozenset({"limits", "safe", "all"})
_ENFORCE_ACCOUNTS = _ENFORCE_LIMITS | {"associations", "qos"}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an association or a qos allows; None: no limit."""

    max_submit: int | None
    max_time_min: int | None


@dataclass(frozen=True, slots=True)
class Association:
    """One of the user's accounts, on one partition where `partition` is not empty."""

    account: str
    partition: str
    bounds: Bounds
    qos: tuple[str, ...]
    default_qos: str | None


@dataclass(frozen=True, slots=True)
class Accounting:
    """The user's associations and the cluster's qos. `checked` and `limited`: what the controller enforces of them."""

    associations: tuple[Association, ...] = ()
    default_account: str | None = None
    qos: Mapping[str, Bounds] | None = None
    checked: bool = False
    limited: bool = False

    def bounds(self, site: Site, partition_qos: str | None) -> Bounds:
        """Return the tightest bounds of the association and the qos that a site's jobs run under."""
        if not self.limited:
            return Bounds(None, None)
        account = site.account or self.default_account
        mine = [a for a in self.associations if a.account == account and a.partition in {"", site.partition}]
        levels = {partition_qos, site.qos, *(a.default_qos for a in mine if not site.qos)}
        found = [a.bounds for a in mine] + [b for name, b in (self.qos or {}).items() if name in levels]
        return Bounds(least(b.max_submit for b in found), least(b.max_time_min for b in found))


def user_name() -> str:
    """Return the user's name as Slurm knows it: by uid, whatever the environment says."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def ask_accounting(config: Mapping[str, str], unknown: list[str]) -> Accounting:
    """Ask sacctmgr; what could not be asked is added to `unknown`. `config` is what `scontrol show config` tells."""
    if "slurmdbd" not in config.get("AccountingStorageType", ""):
        return Accounting()
    user, cluster = user_name(), config.get("ClusterName", "")
    show = ["sacctmgr", "-nP", "show"]
    try:
        associations, default, qos = ask_all(
            [*show, "assoc", f"user={user}", f"cluster={cluster}", f"format={_ASSOCIATION}"],
            [*show, "user", user, "format=defaultaccount"],
            [*show, "qos", f"format={_QOS}"],
        )
    except NotAnsweredError as error:
        unknown.append(f"accounts, qos and MaxSubmitJobs: {error}")
        return Accounting()
    enforced = set(config.get("AccountingStorageEnforce", "none").lower().split(","))
    return Accounting(
        associations=tuple(_association(line) for line in associations.splitlines()),
        default_account=default.strip() or None,
        qos=dict(_qos(line) for line in qos.splitlines()),
        checked=bool(enforced & _ENFORCE_ACCOUNTS),
        limited=bool(enforced & _ENFORCE_LIMITS),
    )


def _association(line: str) -> Association:
    account, partition, own, group, wall, qos, default = line.split("|")[:7]
    return Association(account, partition, _bounds(wall, own, group), names(qos), default or None)


def _qos(line: str) -> tuple[str, Bounds]:
    name, user, account, group, wall = line.split("|")[:5]
    return name, _bounds(wall, user, account, group)


def _bounds(wall: str, *submits: str) -> Bounds:
    """Read limits. A zero is what a damaged accounting database shows for "none": sbatch is the judge of those."""
    return Bounds(least(n for n in map(number, submits) if n), minutes(wall) or None)


def least(values: Iterable[int | None]) -> int | None:
    """Return the smallest of the given values; None where there are none."""
    return min((value for value in values if value is not None), default=None)
