"""Site profiles: where jobs run and with which environment. `slurm/sites/NAME.toml`, or a user's own file by path."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from btrm.config import SECRET, Config, ConfigError, nearest
from btrm.launch.secrecy import is_secret
from btrm.plugins import shipped
from btrm.runs import Resources

Executor = Literal["inline", "local", "slurm"]


# Options of sbatch that btrm sets itself, and what to use instead.
_OWNED = {
    **dict.fromkeys(("job-name", "output", "error", "open-mode", "signal", "begin", "chdir", "export"), "btrm's own"),
    **dict.fromkeys(("kill-on-invalid-dep", "ntasks", "ntasks-per-node", "wrap", "parsable"), "btrm's own"),
    **dict.fromkeys(("clusters", "M"), "one cluster a site: set SLURM_CONF"),
    **{"array": "--shards", "dependency": "--after", "time": "--time", "nodes": "--nodes", "mem": "--mem-gb"},
    **{"cpus-per-task": "--cpus", "gpus-per-node": "--gpus", "gpus": "--gpus", "partition": "--partition"},
    **{"account": "--account", "qos": "--qos", "constraint": "constraint in the site's file"},
}

_CLEANING = frozenset({"--cleanenv", "-e", "--containall", "-C"})


class Container(Config):
    """The image that stages run in; the launcher stays outside.

    `runtime` is what runs it: `apptainer exec`, `singularity exec`, or srun itself with `pyxis`, where there is enroot.
    `binds` are HOST or HOST:INSIDE[:ro]. `sha256` pins the image's file: another one is refused. `unpinned` takes one
    that has no sha256, a folder or a tag: jobs run what is there when they start. `args` are further words for the
    runtime: of exec, or of srun. `nv` is exec's --nv; enroot has a hook of its own for the driver.
    """

    runtime: Literal["apptainer", "singularity", "pyxis"] = "apptainer"
    image: str
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    unpinned: bool = False
    binds: tuple[str, ...] = ()
    python: str = "python"
    nv: bool = True
    args: tuple[str, ...] = ()

    @field_validator("image")
    @classmethod
    def _at_home(cls, value: str) -> str:
        return str(Path(value).expanduser()) if value.startswith("~") else value

    @model_validator(mode="after")
    def _keeps_the_environment(self) -> Self:
        cleaning = [word for word in self.args if word in _CLEANING and self.runtime != "pyxis"]
        if cleaning:
            raise ValueError(f"args {', '.join(cleaning)}: takes SLURM_* and the site's env away from jobs")
        return self

    @model_validator(mode="after")
    def _pinned_or_not(self) -> Self:
        if self.unpinned and self.sha256 is not None:
            raise ValueError(f"unpinned = true and sha256 = {self.sha256!r}: one of the two")
        return self

    @property
    def file(self) -> Path | None:
        """The image's file or folder; None where it is a reference that the runtime resolves."""
        named = self.runtime == "pyxis" and not self.image.startswith(("/", "."))  # enroot's [REGISTRY#]NAME[:TAG]
        return None if named or "://" in self.image else Path(self.image)


class Limits(Config):
    """What a cluster's owner allows one user. None: ask the cluster."""

    max_array: int | None = Field(default=None, ge=1)
    max_jobs: int | None = Field(default=None, ge=1)
    max_submit: int | None = Field(default=None, ge=1)


class Site(Config):
    """How to get resources here. `env` holds paths and switches for the jobs, never secrets.

    `gpu_request` is how this cluster wants to be asked for GPUs: `--gpus-per-node=8`, `--gres=gpu:8` or, with
    `gpu_type`, `--gres=gpu:h100:8` and `--gpus-per-node=h100:8`. `slurm` holds any other sbatch option. `cpu_partition`
    is where jobs without GPUs go: light stages, commits, the controller.
    """

    name: str
    executor: Executor = "inline"
    env: dict[str, str] = Field(default_factory=dict)
    partition: str | None = None
    cpu_partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpu_request: Literal["gpus-per-node", "gres"] = "gpus-per-node"
    gpu_type: str | None = None
    request_memory: bool = True
    slurm: dict[str, str] = Field(default_factory=dict)
    setup: tuple[str, ...] = ()
    python: str | None = None
    scratch: str | None = None
    offline: bool = False
    umask: str | None = Field(default=None, pattern=r"^0?[0-7]{3}$")
    mail_user: str | None = None
    array_parallelism: int | None = Field(default=None, ge=1)
    submit_from_nodes: bool = True
    warn_s: int = Field(120, ge=5)
    backoff_s: float = Field(60.0, gt=0)
    patrol_s: int = Field(900, ge=0)
    queue_interval_s: float = Field(30.0, gt=0)
    limits: Limits = Limits()
    container: Container | None = None

    @field_validator("env")
    @classmethod
    def _no_secrets(cls, value: dict[str, str]) -> dict[str, str]:
        secret = [name for name, text in value.items() if is_secret(name, text)]
        if secret:
            said = "{names}: a site file is no place for secrets; set them in .env (mode 0600)"
            raise PydanticCustomError(SECRET, said, {"names": ", ".join(secret)})
        return value

    @field_validator("slurm")
    @classmethod
    def _not_ours(cls, value: dict[str, str]) -> dict[str, str]:
        named = {name.replace("_", "-").lstrip("-"): text for name, text in value.items()}
        ours = [f"{name} ({_OWNED[name]})" for name in named if name in _OWNED]
        if ours:
            raise ValueError(f"{', '.join(ours)}: not for --slurm or [slurm]")
        return named

    @model_validator(mode="after")
    def _slurm_only(self) -> Self:
        of_slurm = ("partition", "cpu_partition", "account", "qos", "constraint", "slurm", "setup", "container")
        given = [name for name in of_slurm if getattr(self, name)]
        if self.executor != "slurm" and given:
            raise ValueError(f'{", ".join(given)}: only executor = "slurm" has these, this one is {self.executor!r}')
        return self

    def seen_by(self, gpus: int) -> Site:
        """Return the site as a job with so many GPUs sees it: `constraint` goes with `partition`."""
        if gpus or not self.cpu_partition:
            return self
        return self.model_copy(update={"partition": self.cpu_partition, "constraint": None})


def apply_umask(mask: str | None) -> None:
    """Give what this process writes from now on the rights that a site wants; None leaves them as they are."""
    if mask:
        os.umask(int(mask, 8))


def site_folders() -> list[Path]:
    """Return where profiles are looked for, the user's own first: $BTRM_SITES_DIR, ~/.config, what ships."""
    given = os.environ.get("BTRM_SITES_DIR")
    return [*([Path(given).expanduser()] if given else []), own_sites(), shipped("slurm") / "sites"]


def own_sites() -> Path:
    """Return the folder of the user's own profiles."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "btrm" / "sites"


def site_files() -> dict[str, Path]:
    """Return {name: file} of all profiles; a user's own stands in for one that ships under the same name."""
    found = {path.stem: path for folder in reversed(site_folders()) for path in folder.glob("*.toml")}
    return dict(sorted(found.items()))


def default_site() -> str:
    """Return the profile to use where none is named: $BTRM_SITE, else `slurm` where there is sbatch, else `local`."""
    return os.environ.get("BTRM_SITE") or ("slurm" if shutil.which("sbatch") else "local")


def load_site(name: str) -> Site:
    """Return a profile by name or by the path of a .toml file; raise ConfigError for what it gets wrong."""
    path = Path(name).expanduser() if name.endswith(".toml") else site_files().get(name)
    if path is None or not path.is_file():
        raise ConfigError(f"site {name!r}: no such profile{nearest(name, site_files())}")
    try:
        values = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    return Site.build({"name": path.stem, **values}, str(path))


def site_table() -> str:
    """Return the profiles, a line each: where their jobs go, how GPUs are asked for, in which image, and the file."""
    rows = [("name", "executor", "partition", "gpus", "image", "file")]
    for name, path in site_files().items():
        try:
            site = load_site(name)
        except ConfigError as error:
            rows.append((name, "WRONG", "", "", "", str(error)))
            continue
        style = f"{site.gpu_request}{f' {site.gpu_type}' if site.gpu_type else ''}"
        image = _image(site.container) if site.container else "-"
        gpus = style if site.executor == "slurm" else "-"
        rows.append((name, site.executor, _partitions(site), gpus, image, str(path)))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join("  ".join([*map(str.ljust, row, widths), row[-1]]) for row in rows)


def _image(container: Container) -> str:
    return Path(container.image).name + ("" if container.runtime == "apptainer" else f" ({container.runtime})")


def _partitions(site: Site) -> str:
    names = [site.partition or "-", *([f"{site.cpu_partition} (no GPUs)"] if site.cpu_partition else [])]
    return ", ".join(names)


def visible_gpus() -> int:
    """Return how many GPUs this machine offers to this process."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip()])
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in listing.stdout.splitlines())


def check_resources(resources: Resources) -> list[str]:
    """Return what this one machine cannot give, one line each."""
    problems: list[str] = []
    if resources.nodes > 1:
        problems.append(f"--nodes {resources.nodes}: this site is one machine")
    if resources.gpus and resources.gpus > (seen := visible_gpus()):
        cpu = "; --gpus 0 runs on the CPU" if seen == 0 else ""
        problems.append(
            f"--gpus {resources.gpus}: this machine shows {seen} GPUs (nvidia-smi, CUDA_VISIBLE_DEVICES){cpu}"
        )
    return problems
