"""The lines of `btrm doctor`: a level, what was found and the fix; and those that any machine's facts give."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import metadata

from btrm.checks import Check, Level
from btrm.launch.site import Site
from btrm.operate.doctor_disk import LOCK
from btrm.operate.doctor_node import DEPENDENCIES, Facts
from btrm.train.swift_series import own_version
from btrm.versions import LOCAL_VERSION

_ROOM_GB = {"run": 50.0, "HF_HOME": 50.0, "scratch": 20.0, "/tmp": 2.0, "/dev/shm": 1.0}
_LEAST_GB = 0.5
_LEAST_FILES = 10_000
# Where clusters commonly have a node's own disk.
SCRATCH = ("$SLURM_TMPDIR", "/scratch", "/local", "/localscratch", "/lscratch", "/tmp")
CACHES = ("XDG_CACHE_HOME", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "VLLM_CACHE_ROOT")


def paths_to_check(site: Site, run: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return {label: path} of all that jobs write to: runs, caches, scratch, binds."""
    env = {**environ, **site.env}
    caches = env.get("XDG_CACHE_HOME") or "~/.cache"
    paths = {"run": run, "HF_HOME": env.get("HF_HOME") or f"{caches}/huggingface", "/tmp": "/tmp"}
    paths |= {name: env[name] for name in CACHES if env.get(name)}
    if site.scratch:
        paths["scratch"] = site.scratch
    for bind in site.container.binds if site.container else ():
        paths[f"bind {bind}"] = bind.partition(":")[0]
    return paths


def path_checks(facts: Facts, absent: Level) -> Iterator[Check]:
    """Yield a line a path: writable, with room. `absent` is the level of a bind or a scratch that is not there."""
    for label, fact in facts.paths.items():
        what = f"{facts.place}: {label} {fact.path}" if fact.path not in label else f"{facts.place}: {label}"
        read_only = label.startswith("bind ") and label.endswith(":ro")
        needed = label.startswith("bind ") or label == "scratch"
        if needed and not fact.exists:
            why = fact.problem if "$" in fact.path else "not there"
            yield Check(absent, f"{what}: {why}", "make it, or change it in the site's file")
        elif fact.problem and not read_only:
            fix = f"{label} in [env] of the site's file" if label in ("HF_HOME", *CACHES) else "free space"
            yield Check("FAIL", f"{what}: {fact.problem}", f"{fix}, or another place that is writable in the job")
        elif fact.free_gb < _LEAST_GB or fact.free_files < _LEAST_FILES:
            yield Check("FAIL", f"{what}: {fact.free_gb:.1f} GB, {fact.free_files} files left", "free some (btrm gc)")
        elif fact.free_gb < _ROOM_GB.get(label, 0.0):
            yield Check("WARN", f"{what}: {fact.free_gb:.1f} GB left", f"{_ROOM_GB[label]:.0f} GB are soon used")
        else:
            yield Check("OK", f"{what}: {'readable' if read_only else 'writable'}, {fact.free_gb:.0f} GB left")


def disk_checks(facts: Facts) -> Iterator[Check]:
    """Yield what the file system of the run's folder cannot do. Without links and renames nothing can be published."""
    failed = {what: why for what, why in facts.disk.items() if why}
    place = f"{facts.place}: the run's folder"
    for what, why in failed.items():
        if what == LOCK:
            fix = "mount it with locks (Lustre: -o flock), or see to it that no two processes here take the same run"
            yield Check("WARN", f"{place}: {what}: {why}; jobs have leases, processes of one machine do not", fix)
        else:
            fix = "--run on another file system: a local disk, NFS, Lustre, GPFS; not a bucket's or a FAT mount"
            yield Check("FAIL", f"{place}: {what}: {why}", fix)
    if facts.disk and not failed:
        yield Check("OK", f"{place}: {', '.join(facts.disk)} work")


def python_checks(facts: Facts) -> Iterator[Check]:
    """Yield a line on Python and what btrm needs, and one on ms-swift."""
    yield interpreter_check(facts)
    yield _swift_check(facts.place, facts.packages.get("ms-swift"))


def interpreter_check(facts: Facts) -> Check:
    """Return a line on Python and what btrm needs: all that counts where stages run elsewhere, in an image."""
    missing = [name for name in DEPENDENCIES if name not in facts.packages]
    what = f"{facts.place}: python {facts.python} ({facts.executable}), btrm from {facts.code}"
    if tuple(map(int, facts.python.split(".")[:2])) < (3, 11):
        return Check("FAIL", f"{what}: too old", "Python 3.11 or later")
    if missing:
        image = facts.place.startswith("image")
        fix = "an image of btrm container build" if image else f"pip install {' '.join(missing)} there"
        return Check("FAIL", f"{what}: lacks {', '.join(missing)}", fix)
    return Check("OK", what)


def _swift_check(place: str, found: str | None) -> Check:
    """Return the line on ms-swift: which release, with which patches."""
    if found is None:
        return Check("WARN", f"{place}: no ms-swift", "pip install 'btrm[train]' where sft and grpo shall run")
    release, _, series = found.partition(LOCAL_VERSION)
    what, adapted = f"{place}: ms-swift {release}", adapted_swift()
    if adapted and release != adapted:
        return Check("FAIL", f"{what}; btrm's adapter is made for {adapted}", f"pip install ms-swift=={adapted}")
    if not series:
        return Check("OK", f"{what}, plain, with btrm's pair sampler put in by its adapter")
    if found == own_version(release):
        return Check("OK", f"{what}, patched (series {series})")
    fix = (
        "build the image anew (btrm container build), or in a venv: reinstall ms-swift, run containers/patches/apply.py"
    )
    mine = own_version(release).partition(LOCAL_VERSION)[2]
    return Check("WARN", f"{what}, patched (series {series}), not with this btrm's {mine}; its adapter is used", fix)


def adapted_swift() -> str | None:
    """Return the ms-swift version that btrm pins, from its own package's metadata."""
    try:
        lines = metadata.requires("btrm") or []
    except metadata.PackageNotFoundError:
        return None
    return next((found[1] for line in lines if (found := re.match(r"ms-swift==([\d.]+)", line))), None)
