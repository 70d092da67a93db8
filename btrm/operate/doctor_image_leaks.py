"""What of the host's environment is seen in an image and breaks Python, the loader or a compiler there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from btrm.checks import Check
from btrm.operate.doctor_image_facts import Around
from btrm.operate.doctor_node import Facts

_OWN = "/.singularity.d/libs"  # where --nv puts the driver's libraries
_ENVIRONMENTS = ("CONDA_PREFIX", "VIRTUAL_ENV")
# A variable that names a file or folder which is not in the image, and what that breaks.
_BROKEN = {
    "CC": "what triton and DeepSpeed compile",
    "CXX": "what triton and DeepSpeed compile",
    "CUDA_HOME": "what triton and DeepSpeed compile",
    "CUDA_PATH": "what triton and DeepSpeed compile",
    "SSL_CERT_FILE": "every https connection",
    "SSL_CERT_DIR": "every https connection",
    "REQUESTS_CA_BUNDLE": "every https connection",
    "CURL_CA_BUNDLE": "every https connection",
    "TMPDIR": "temporary files",
}


def leak_checks(outside: Facts, inside: Facts) -> Iterator[Check]:
    """Yield a line for each variable, or place on Python's path, that comes from the host; one line where none does."""
    found = [
        *_python(inside),
        *_loader(outside.around, inside),
        *_environments(inside),
        *_broken(inside),
        *_paths(inside),
    ]
    yield from found
    if not found:
        yield Check("OK", f"{inside.place}: nothing of the host's environment steers its Python or its loader")


def _python(inside: Facts) -> Iterator[Check]:
    variables = inside.around.variables
    foreign = [e for e in variables.get("PYTHONPATH", "").split(":") if e and not _within(e, [_code(inside)])]
    if foreign:
        fix = "no PYTHONPATH for the image (in args, in its own environment): jobs put the code's copy there alone"
        yield Check("WARN", f"{inside.place}: PYTHONPATH holds {':'.join(foreign)} too", fix)
    if home := variables.get("PYTHONHOME"):
        yield Check("FAIL", f"{inside.place}: PYTHONHOME={home}", 'setup = ["unset PYTHONHOME"]')
    if inside.around.user_site:
        fix = 'PYTHONNOUSERSITE = "1" in [env]'
        yield Check("WARN", f"{inside.place}: packages of a home count too ({inside.around.user_site})", fix)


def _loader(host: Around, inside: Facts) -> Iterator[Check]:
    around = inside.around
    if preload := around.variables.get("LD_PRELOAD"):
        level = "FAIL" if around.gone.get("LD_PRELOAD") else "WARN"
        lost = ", which is not there" if level == "FAIL" else ""
        yield Check(level, f"{inside.place}: LD_PRELOAD={preload}{lost}", 'setup = ["unset LD_PRELOAD"]')
    entries = [entry for entry in around.variables.get("LD_LIBRARY_PATH", "").split(":") if entry and entry != _OWN]
    hosts = host.variables.get("LD_LIBRARY_PATH", "").split(":")
    foreign = [entry for entry in entries if entry in hosts or entry in around.gone.get("LD_LIBRARY_PATH", [])]
    if foreign:
        fix = "no LD_LIBRARY_PATH for the image in [env] or args: its libraries find each other, --nv adds the driver's"
        yield Check("WARN", f"{inside.place}: LD_LIBRARY_PATH holds {':'.join(foreign)} of the host", fix)


def _environments(inside: Facts) -> Iterator[Check]:
    around = inside.around
    for name in _ENVIRONMENTS:
        folder = around.variables.get(name)
        if folder and not any(_within(prefix, [folder]) for prefix in around.prefixes):
            fix = f'setup = ["unset {name}"], or submit without an environment active'
            yield Check("WARN", f"{inside.place}: {name}={folder} is not the image's", fix)


def _broken(inside: Facts) -> Iterator[Check]:
    """Yield a line for each place that variables name and the image has not."""
    named: dict[tuple[str, str], list[str]] = {}
    for name, what in _BROKEN.items():
        for place in inside.around.gone.get(name, []):
            named.setdefault((place, what), []).append(name)
    for (place, what), names in named.items():
        fix = f'setup = ["unset {" ".join(names)}"], a bind of it, or a place of the image in [env]'
        yield Check("WARN", f"{inside.place}: {', '.join(names)}={place} is not in it, which breaks {what}", fix)


def _paths(inside: Facts) -> Iterator[Check]:
    """Yield what Python looks into beside its own folders and the code's copy, and no variable explains."""
    known = [*inside.around.prefixes, _code(inside), *inside.around.variables.get("PYTHONPATH", "").split(":")]
    known += [inside.around.user_site] if inside.around.user_site else []
    if foreign := [entry for entry in inside.around.sys_path if not _within(entry, known)]:
        fix = 'a .pth file, or "-m" from a folder with modules: PYTHONSAFEPATH = "1" in [env]'
        yield Check("WARN", f"{inside.place}: Python also looks into {', '.join(foreign)}", fix)


def _code(inside: Facts) -> str:
    """Return the folder that holds the btrm which answered."""
    return str(Path(inside.code).parent)


def _within(path: str, folders: list[str]) -> bool:
    return any(folder and Path(path).is_relative_to(folder) for folder in folders)
