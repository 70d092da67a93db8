"""The one-box cluster's settings, its folders, and Slurm's configuration files made from both."""

from __future__ import annotations

import json
import os
import pwd
import random
import re
import shutil
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

from btrm.config import ConfigError
from btrm.plugins import shipped
from btrm.publishing import write_json

CORE = {"slurmctld": "slurmctld", "slurmd": "slurmd", "sinfo": "slurm-client", "munged": "munge"}
ACCOUNTING = {"slurmdbd": "slurmdbd", "mariadbd": "mariadb-server-core"}
_FOLDERS = ("munge", "controller", "spool", "run", "daemons", "log", "etc", "gpus", "database/data")
_LONGEST_ROOT = 60  # a Unix socket's path has 108 bytes; slurmstepd's is ROOT/spool/NODE/NODE_JOB.STEP
_TIME = re.compile(r"INFINITE|\d+|(\d+-)?\d+:\d\d:\d\d")
_SQL_FOLDERS = ("/usr/share/mysql", "/usr/share/mariadb")
# Below the range from which the kernel gives ports to outgoing connections.
_PORTS = range(20000, 30000)


@dataclass
class Settings:
    """A cluster: its folder, its nodes (all alike) and its limits. Memory is only counted, not held.

    `port` is the first of nodes + 2 in a row; 0 picks free ones.
    """

    root: Path
    nodes: int = 4
    gpus: int = 8
    cpus: int = 8
    mem_gb: int = 1024
    accounting: bool = False
    node_names: Sequence[str] | None = None
    max_array: int = 1001
    max_jobs: int = 10000
    slurmd_timeout_s: int = 10
    kill_wait_s: int = 2
    grace_s: int = 0
    max_time: str = "INFINITE"
    extra: str = ""
    port: int = 0

    def __post_init__(self) -> None:
        self.root = Path(self.root).absolute()
        if self.node_names is None:
            self.node_names = [f"n{number}" for number in range(1, self.nodes + 1)]
        self.nodes = len(self.node_names)
        _check(self)

    @property
    def names(self) -> list[str]:
        """The nodes' names."""
        return list(self.node_names or ())

    @property
    def conf(self) -> Path:
        """The slurm.conf that every command needs in SLURM_CONF."""
        return self.root / "etc" / "slurm.conf"

    @property
    def record(self) -> Path:
        """The file that says what this folder is."""
        return self.root / "cluster.json"


def _check(settings: Settings) -> None:
    problems: list[str] = []
    counts = ("nodes", "cpus", "mem_gb", "max_array", "max_jobs", "slurmd_timeout_s")
    problems += [f"{name} {getattr(settings, name)}: at least 1" for name in counts if getattr(settings, name) < 1]
    waits = ("gpus", "kill_wait_s", "grace_s")
    problems += [f"{name} {getattr(settings, name)}: at least 0" for name in waits if getattr(settings, name) < 0]
    if not _TIME.fullmatch(settings.max_time):
        problems.append(f"max_time {settings.max_time!r}: expected INFINITE, MINUTES or [DAYS-]HOURS:MINUTES:SECONDS")
    if len(os.fsencode(settings.root)) > _LONGEST_ROOT:
        problems.append(f"{settings.root}: at most {_LONGEST_ROOT} bytes long, since sockets lie below it")
    if set(str(settings.root)) & set(" \t#$%[],'\""):
        problems.append(f"{settings.root}: a path without blanks and signs that slurm.conf reads as its own")
    if problems:
        raise ConfigError("\n".join(problems))


def load_settings(root: Path) -> dict[str, Any]:
    """Return all settings but the root of the cluster in this folder; raise ConfigError where there is none."""
    path = root / "cluster.json"
    if not path.is_file():
        raise ConfigError(f"{root}: no cluster here; btrm cluster up makes one")
    return json.loads(path.read_text())


def require_packages(accounting: bool) -> None:
    """Raise ConfigError with the command that installs what is missing."""
    wanted = CORE | (ACCOUNTING if accounting else {})
    missing = [package for command, package in wanted.items() if find(command) is None]
    if missing:
        install = f"apt-get install -y --no-install-recommends {' '.join(missing)}"
        raise ConfigError(f"not installed: {', '.join(missing)}; as root on Debian or Ubuntu: {install}")


def find(command: str) -> str | None:
    """Return a daemon's path; a normal user's PATH often lacks the sbin folders."""
    return shutil.which(command, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")


def user_name() -> str:
    """Return the name of the user whom the daemons run as, whatever USER and LOGNAME say."""
    return pwd.getpwuid(os.geteuid()).pw_name


def lay_out(settings: Settings) -> None:
    """Make the cluster's folders and write its configuration; what an earlier cluster left in them goes."""
    root = settings.root
    if root.exists() and any(root.iterdir()) and not settings.record.exists():
        raise ConfigError(f"{root}: holds something else than a cluster; give an empty or a new folder")
    shutil.rmtree(root, ignore_errors=True)
    for folder in _FOLDERS:
        (root / folder).mkdir(parents=True)
    root.chmod(0o755)
    settings.port = settings.port or _free_ports(settings.nodes + 2)
    write_json(settings.record, {name: value for name, value in _fields(settings).items() if name != "root"})
    for number in range(settings.gpus):
        (root / "gpus" / f"nvidia{number}").symlink_to("/dev/null")
    key = root / "munge" / "key"
    key.touch(0o600)
    key.write_bytes(os.urandom(128))
    _write_conf(settings)


def _write_conf(settings: Settings) -> None:
    etc, gpus = settings.root / "etc", settings.gpus
    values = _values(settings)
    for name in ("slurm.conf", "slurmdbd.conf", "mariadbd.conf"):
        template = Template((shipped("slurm") / "onebox" / name).read_text())
        (etc / name).touch(0o600)  # slurmdbd refuses a file that others can read
        (etc / name).write_text(template.substitute(values))
    (etc / "gres.conf").write_text(
        f"Name=gpu Type=h200 File={settings.root}/gpus/nvidia[0-{gpus - 1}]\n" if gpus else ""
    )
    if settings.accounting:
        (settings.root / "database" / "init.sql").write_text(_procedures_table())
    (etc / "cgroup.conf").write_text(f"CgroupPlugin={'disabled' if _is_new() else 'cgroup/v1'}\n")


def _procedures_table() -> str:
    """Return the SQL that makes mysql.proc, as this server's own set-up has it."""
    scripts = [path for folder in _SQL_FOLDERS for path in Path(folder).glob("m*_system_tables.sql")]
    wanted = "CREATE TABLE IF NOT EXISTS proc ("
    lines = [line for path in scripts for line in path.read_text().splitlines() if line.startswith(wanted)]
    if not lines:
        raise ConfigError(f"no {wanted!r} in m*_system_tables.sql in {' or '.join(_SQL_FOLDERS)}")
    return f"CREATE DATABASE IF NOT EXISTS mysql;\nUSE mysql;\n{lines[0]}\n"


def _values(settings: Settings) -> dict[str, Any]:
    host = socket.gethostname().split(".")[0]
    address = f"NodeHostname={host} NodeAddr=127.0.0."
    return _fields(settings) | {
        "host": host,
        "user": user_name(),
        "controller_port": settings.port,
        "accounting_port": settings.port + 1,
        # A dead node is noticed after slurmd_timeout_s and one to two of these (measured: 15 s for 10, 9 s for 5).
        "message_timeout_s": min(10, max(2, settings.slurmd_timeout_s // 2)),
        "preempt_lines": "SlurmctldParameters=preempt_send_user_signal" if settings.grace_s else "",
        "mem_mb": settings.mem_gb * 1024,
        "gres": f"Gres=gpu:h200:{settings.gpus}" if settings.gpus else "",
        "version_lines": "" if _is_new() else "TaskPlugin=task/none\nSwitchType=switch/none",
        "accounting_lines": _accounting_lines(settings),
        "node_lines": "\n".join(
            f"NodeName={name} {address}{1 + number % 254} Port={settings.port + 2 + number}"
            for number, name in enumerate(settings.names)
        ),
    }


def _fields(settings: Settings) -> dict[str, Any]:
    """Return the settings proper; a running cluster has more to it."""
    return {field.name: getattr(settings, field.name) for field in fields(Settings)}


def _accounting_lines(settings: Settings) -> str:
    if not settings.accounting:
        return "AccountingStorageType=accounting_storage/none"
    return f"""AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={settings.port + 1}
AccountingStoragePass={settings.root}/munge/socket
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=limits"""


@cache
def _is_new() -> bool:
    """Whether this Slurm is 23.11 or later, where some plugins are gone."""
    command = find("slurmctld")
    assert command is not None
    words = subprocess.run([command, "-V"], text=True, capture_output=True, check=True).stdout.split()
    major, minor = words[-1].split(".")[:2]
    return (int(major), int(minor)) >= (23, 11)


def _free_ports(count: int) -> int:
    """Return the first of `count` free ports in a row."""
    for _ in range(200):
        first = random.randrange(_PORTS.start, _PORTS.stop - count)
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise ConfigError(f"no {count} free ports in a row between {_PORTS.start} and {_PORTS.stop}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
