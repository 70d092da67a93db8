"""Container runtimes: how a command gets into a site's image, as a job's step and by hand. Nothing else knows.

`apptainer` (and `singularity`, its older name) is a prefix of the command that srun starts; `pyxis` is options of srun
itself. Either way the process keeps the job's environment, its working directory and its exit code, and gets its
signals; the host's home is not there, and what a job reads and writes is bound at its own path.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from btrm.images import DIGEST, STAT, image_digest
from btrm.launch.site import Container, Site

# The host's own Python and its preloaded libraries, which an image would take for its own. Apptainer, which may itself
# need the host's LD_LIBRARY_PATH, does not hand that on.
LEAKS = (
    *("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONUSERBASE"),
    *("VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "LD_PRELOAD"),
)
# What makes apptainer do as args must not (see Container), set by whoever submits or by a module. It reads its older
# name's variables too; what ends in ENV_ is for the image alone: a way in for all of the above.
_SWITCHES = "{APPTAINER,SINGULARITY}_{CLEANENV,CONTAIN,CONTAINALL}"
_HANDED_ON = "{APPTAINER,SINGULARITY}ENV_"
_PREFIXES = {"apptainer": "APPTAINERENV_", "singularity": "SINGULARITYENV_"}
CHANGED_CODE = 78  # EX_CONFIG
_MISREAD = ":,"
_HIDING = (Path("/"), Path("/opt"), Path("/var"))
_SYSTEM = ("/usr", "/etc", "/bin", "/sbin", "/lib", "/lib64", "/dev", "/proc", "/sys", "/opt/btrm")
_MOUNTS = '"$mounts"'  # set by the job's script: what only the node can say


def job_words(container: Container, places: Iterable[str], handed: Iterable[str]) -> str:
    """Return what stands in a job's script between srun's own options and the words of the image's Python.

    `places` are bound at their own paths, beside the site's binds and what `mount_lines` has found on the node.
    `handed` names the variables that an image's own values must not hide.
    """
    ready = [*container.binds, *places]
    if container.runtime == "pyxis":
        options = f"{_pyxis(container, ready, handed)},{_MOUNTS}"
        workdir = '--container-workdir="$PWD"'
        return f"{options} {workdir} {shlex.join([*container.args, container.python])}"
    inside = shlex.join([*container.args, container.image, container.python])
    return f'{shlex.join(_apptainer(container, ready))} --bind {_MOUNTS} --pwd "$PWD" {inside}'


def exec_words(container: Container, places: Iterable[str], cwd: Path, command: Sequence[str]) -> list[str]:
    """Return a command as it is run in the image outside of a job's script: here, or as a step of its own."""
    ready = [*dict.fromkeys([*container.binds, *places, str(cwd)])]
    if container.runtime == "pyxis":
        step = ["srun", "--overlap", "--nodes=1", "--ntasks=1"]
        return [*step, *pyxis_words(container, ready, cwd), *command]
    return [*_apptainer(container, ready), "--pwd", str(cwd), *container.args, container.image, *command]


def pyxis_words(container: Container, binds: Sequence[str], cwd: Path) -> list[str]:
    """Return the options with which srun starts its tasks in an image."""
    options = shlex.split(_pyxis(container, binds, ()))
    return [*options, f"--container-workdir={cwd}", *container.args]


def _apptainer(container: Container, binds: Sequence[str]) -> list[str]:
    words = [container.runtime, "-q", "exec", "--no-home", *(["--nv"] if container.nv else [])]
    return [*words, *(word for bind in binds for word in ("--bind", bind))]


def _pyxis(container: Container, binds: Sequence[str], handed: Iterable[str]) -> str:
    """Return pyxis' options as shell text, the mounts last, so that more can be added behind a comma."""
    mounts = ",".join(bind if ":" in bind else f"{bind}:{bind}" for bind in binds)
    words = [f"--container-image={container.image}", "--no-container-mount-home"]
    names = ",".join(sorted(handed))
    return shlex.join([*words, *([f"--container-env={names}"] if names else []), f"--container-mounts={mounts}"])


def unset_line(container: Container) -> str:
    """Return bash's line that keeps the host's Python out, and from apptainer what would keep the job's variables out.

    With pyxis it takes the host's libraries away too; apptainer does so itself.
    """
    if container.runtime == "pyxis":
        return f"unset {' '.join([*LEAKS, 'LD_LIBRARY_PATH'])}"
    return f"unset {' '.join(LEAKS)} {_HANDED_ON}{{{','.join(LEAKS)}}} {_SWITCHES}"


def mount_lines(scratch: str | None, nodes: int) -> list[str]:
    """Return the shell lines that set $mounts: the working directory, and a single node's own disk where it has one.

    Of several nodes the script, which runs on the first, could not know whether all have it; none stages there, and a
    TMPDIR that is not bound must not be named inside.
    """
    lines = ['mounts="$PWD:$PWD"']
    if nodes > 1:
        return [*lines, "unset TMPDIR"]
    own = ([_expanding(scratch)] if scratch else []) + ["$TMPDIR"]
    lines += [f'mkdir -p "{own[0]}" 2>/dev/null'] if scratch else []
    return [*lines, *(f'[ ! -d "{place}" ] || mounts="$mounts,{place}:{place}"' for place in dict.fromkeys(own))]


def _expanding(path: str) -> str:
    """Return a path as text between double quotes, where the shell fills in variables and a leading ~, nothing else."""
    quoted = re.sub(r'["`\\]|\$(?![A-Za-z_{])', r"\\\g<0>", path)
    return re.sub(r"^~(?=/|$)", "$HOME", quoted)


def exports(container: Container, code: str | None) -> dict[str, str]:
    """Return the variables by which a runtime hands on what the image may not set itself."""
    prefix = _PREFIXES.get(container.runtime)
    return {f"{prefix}PYTHONPATH": code or ""} if prefix else {}


def image_lines(container: Container, sha256: str | None, stat: str | None, nodes: int, known: Path) -> list[str]:
    """Return bash's lines that end a job on any of whose nodes the image is not the one that it was submitted with.

    Inode, size and times tell at once that it is; a copy, as on another file system or a node's own disk, is hashed,
    by the first job on a node that meets it: the folder `known` has the stat of the copy that each node has hashed.
    """
    if sha256 is None or stat is None:
        return []
    image, listed = shlex.quote(container.image), shlex.quote(f"{sha256}  {container.image}")
    folder, seen = shlex.quote(str(known)), f'{shlex.quote(str(known))}/"$(uname -n)"'
    said = (
        f"btrm: image_changed: {container.image} is not there, or is not what was submitted with (sha256 {sha256}), on"
    )
    everywhere = "srun --export=ALL --kill-on-bad-exit=0 bash -c image_check"  # each node speaks for itself
    return [
        "image_check() {",
        f"  found=$(stat -Lc '{STAT}' {image} 2>&1)",
        f'  [ "$found" = {shlex.quote(stat)} ] || (',
        f"    {{ mkdir -p {folder} && exec 9>> {seen} && flock -w 900 9; }} 2>/dev/null",
        f'    [ "$(cat {seen} 2>/dev/null)" = "$found" ] && exit',
        f"    sha256sum --check --status <<< {listed} || exit",
        f'    echo "$found" > {seen} || true',
        f'  ) || {{ echo {shlex.quote(said)} "$(uname -n)"; return {CHANGED_CODE}; }}',
        "}",
        *([f"export -f image_check; {everywhere} || exit"] if nodes > 1 else ["image_check || exit"]),
        "unset -f image_check",
    ]


def image_sha256(container: Container) -> str | None:
    """Return the sha256 of an image's file, or the digest in a reference; None where it has none, or is not there."""
    if container.file is None:
        found = DIGEST.search(container.image)
        return found[1] if found else None
    return image_digest(str(container.file)) if container.file.exists() else None


def image_warnings(site: Site) -> list[str]:
    """Return what is said of an image that is taken without a sha256: nothing holds jobs, or a retry, to the same."""
    container = site.container
    if container is None or not container.unpinned or image_sha256(container) is not None:
        return []
    return [f"image {container.image}: unpinned; jobs take what is there when they start, and manifests have no sha256"]


def _pinnable(container: Container) -> str:
    return "a .sqsh file" if container.runtime == "pyxis" else "a .sif file, NAME@sha256:…"


def image_problems(site: Site) -> list[str]:
    """Return why a site's image cannot be submitted with, a line each."""
    container = site.container
    if container is None:
        return []
    image, lines = container.image, list[str]()
    if container.file is not None and not container.file.exists():
        return [f"[container] image {image}: no such file here; btrm doctor --site {site.name} tells more"]
    if container.sha256 is not None and (found := image_sha256(container)) != container.sha256:
        is_now = f"its sha256 is {found}" if found else "it has no sha256 that could be compared"
        lines.append(f"[container] image {image}: {is_now}, sha256 = {container.sha256!r}; another image, or a new pin")
    elif container.sha256 is None and not container.unpinned and image_sha256(container) is None:
        fix = f"{_pinnable(container)}, or unpinned = true for whatever is there when a job starts"
        lines.append(f"[container] image {image}: has no sha256 that jobs could be held to; {fix}")
    cwd = Path.cwd()
    if wrong := sorted(set(_MISREAD) & set(str(cwd))):
        lines.append(f"{cwd}: {' '.join(map(repr, wrong))} splits a bind; submit from another folder")
    if cwd in _HIDING or any(Path(folder) in (cwd, *cwd.parents) for folder in _SYSTEM):
        lines.append(f"{cwd}: bound into the image it would hide the image's own; submit from another folder")
    return lines
