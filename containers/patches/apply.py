"""Put btrm's patch series into an installed ms-swift, or take it out again.

python apply.py                  into the ms-swift of this Python
python apply.py --target DIR     into the one in DIR, a folder like site-packages
python apply.py --check          only say what is there; ends with 0 where this series is in
python apply.py --reverse        take it out

Standard library and GNU patch only. The files must be those of the pinned release, by their sha256, and are checked
again afterwards. Every file is patched apart and put in its place by a rename, what is in place is written down last
(swift/btrm_patches.json): after kill -9 in the middle, another call ends what was begun, in either direction.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import importlib.util
import json
import os
import py_compile
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from importlib import metadata
from pathlib import Path

SERIES = Path(__file__).resolve().parent / "ms-swift-4.6.0"
SUMS, MARKER = "series.json", "swift/btrm_patches.json"
_SECTION = re.compile(rb"^(?=diff --git a/\S+ b/\S+\n)", re.MULTILINE)  # no line of a hunk begins so


class RefusedError(Exception):
    """What stands in the way, and what to do."""


class Series:
    """A folder of patches, and the sha256 of each file before and after them; None before: a new file."""

    def __init__(self, folder: Path) -> None:
        told = json.loads((folder / SUMS).read_text())
        self.version: str = told["version"]
        self.before: dict[str, str | None] = {path: sums["before"] for path, sums in told["files"].items()}
        self.after: dict[str, str] = {path: sums["after"] for path, sums in told["files"].items()}
        self.sections = sections(folder)
        self.sha256 = sha256(b"".join(patch.read_bytes() for patch in patches(folder)))  # cat *.patch | sha256sum
        if set(self.sections) != set(self.after):
            raise RefusedError(f"{folder}: {SUMS} and the patches are not of the same files; refresh.py writes it")

    @property
    def marker(self) -> bytes:
        """What is written beside the patched package."""
        return json.dumps({"series": self.sha256, "files": self.after}, indent=1).encode() + b"\n"


def patches(folder: Path) -> list[Path]:
    """Return a series' patches, in order."""
    return sorted(folder.glob("*.patch"))


def sections(folder: Path) -> dict[str, bytes]:
    """Return the part of a series that is of one file, for each of its files."""
    found: dict[str, bytes] = {}
    for patch in patches(folder):
        for section in _SECTION.split(patch.read_bytes())[1:]:
            path = section.split(b"\n", 1)[0].rpartition(b" b/")[2].decode()
            found[path] = found.get(path, b"") + section
    return found


def sha256(content: bytes) -> str:
    """Return the hexadecimal digest."""
    return hashlib.sha256(content).hexdigest()


def sums(files: dict[str, bytes | None]) -> dict[str, str | None]:
    """Return each file's sha256; None for one that is not there."""
    return {path: None if content is None else sha256(content) for path, content in files.items()}


def installed(target: Path | None) -> metadata.Distribution:
    """Return ms-swift's distribution in a folder, or of this Python."""
    where = [str(target)] if target is not None else sys.path
    found = next(iter(metadata.distributions(name="ms-swift", path=where)), None)
    if found is None or not Path(str(found.locate_file("swift/__init__.py"))).is_file():
        raise RefusedError(
            f"no ms-swift in {target or 'this Python: ' + sys.executable}; pip install ms-swift there, or --target"
        )
    return found


def read(path: Path) -> bytes | None:
    """Return a file's content, or None where there is none."""
    return path.read_bytes() if path.is_file() else None


def found_series(site: Path) -> str | None:
    """Return the series that a package says it has, or None."""
    marker = read(site / MARKER)
    return None if marker is None else str(json.loads(marker)["series"])


def contents(site: Path, series: Series) -> dict[str, bytes | None]:
    """Return the series' files as they are; refuse those that are neither the release's nor this series'."""
    now = {path: read(site / path) for path in series.after}
    strange = [path for path, found in sums(now).items() if found not in {series.before[path], series.after[path]}]
    if strange:
        raise RefusedError(
            f"not as in ms-swift {series.version}: {', '.join(strange)} (in {site}); "
            f"pip install --force-reinstall --no-deps ms-swift=={series.version} brings them back"
        )
    return now


def after_patch(path: str, content: bytes | None, section: bytes, direction: list[str]) -> bytes | None:
    """Return a file's content after its part of the series, from GNU patch, without any fuzz."""
    need_patch()
    with tempfile.TemporaryDirectory(prefix="btrm-patch-") as name:
        file = Path(name) / path
        file.parent.mkdir(parents=True)
        if content is not None:
            file.write_bytes(content)
        command = ["patch", "-p1", "--fuzz=0", "--no-backup-if-mismatch", "--force", "--silent", *direction]
        done = subprocess.run(command, cwd=name, input=section, capture_output=True, check=False)
        if done.returncode:
            raise RefusedError(
                f"patch failed on {path}: {(done.stdout + done.stderr).decode(errors='replace').strip()}"
            )
        return read(file)


@cache
def need_patch() -> None:
    """Refuse where there is no GNU patch: others know no --fuzz."""
    found = shutil.which("patch")
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout if found else ""
    if not said.startswith("GNU patch"):
        raise RefusedError("GNU patch is not here; install it (apt-get install patch, dnf install patch)")


def put(path: Path, content: bytes | None) -> None:
    """Write a file, whole or not at all, by a rename, so that a link into a cache is replaced; None takes it away."""
    if content is None:
        path.unlink(missing_ok=True)
        return
    beside = path.with_name(f".{path.name}.btrm-{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.chmod(0o644)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def new_record(text: bytes, files: dict[str, bytes | None]) -> bytes:
    """Return a distribution's RECORD with its files as they are now, so that pip takes away the right ones."""
    end = "\r\n" if b"\r\n" in text else "\n"
    lines: list[str] = []
    owed = {path: content for path, content in files.items() if content is not None}
    for line in text.decode().split(end)[:-1]:
        path = line.split(",")[0]
        if path in owed:
            lines.append(record_line(path, owed.pop(path)))
        elif path not in files:
            lines.append(line)
    lines += [record_line(path, content) for path, content in owed.items()]
    return "".join(line + end for line in lines).encode()


def record_line(path: str, content: bytes) -> str:
    """Return a file's line in RECORD."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(content)}"


def planned(now: dict[str, bytes | None], series: Series, action: str) -> dict[str, bytes | None]:
    """Return the files as they shall be; refuse where patch does not lead there."""
    want = series.after if action == "apply" else series.before
    ready: dict[str, bytes | None] = {}
    for path, content in now.items():
        there = sums({path: content})[path] == want[path]
        direction = [] if action == "apply" else ["--reverse"]
        ready[path] = content if there else after_patch(path, content, series.sections[path], direction)
    wrong = [path for path, found in sums(ready).items() if found != want[path]]
    if wrong:
        raise RefusedError(f"{', '.join(wrong)}: not as {SUMS} says after patch; nothing was changed")
    return ready


def change(dist: metadata.Distribution, series: Series, action: str) -> bool:
    """Apply the series or take it out; say whether there was anything to do.

    Nothing is touched before it is known what all files will be; the marker is taken away first and written last.
    """
    site = Path(str(dist.locate_file("")))
    now = contents(site, series)
    ready = planned(now, series, action)
    marker = series.marker if action == "apply" else None
    record = f"ms_swift-{dist.version}.dist-info/RECORD"
    told = read(site / record)
    later = {path: content for path, content in ready.items() if content != now[path]}
    if told is not None and (new := new_record(told, {**ready, MARKER: marker})) != told:
        later[record] = new
    if not later and read(site / MARKER) == marker:
        return False
    put(site / MARKER, None)
    for path, content in {**later, MARKER: marker}.items():
        put(site / path, content)
        compiled(site / path)
    return True


def compiled(path: Path) -> None:
    """Compile a module anew, or take away what is left of it, where that can be written: an image's cannot, later."""
    with contextlib.suppress(OSError):
        if path.suffix == ".py" and path.is_file():
            py_compile.compile(str(path), quiet=2)
        elif path.suffix == ".py":
            Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)


def run(target: Path | None, action: str) -> int:
    """Do what is asked; return the exit code. Raises RefusedError."""
    series, dist = Series(SERIES), installed(target)
    site = Path(str(dist.locate_file("")))
    name, patched = f"ms-swift {dist.version} in {site}", f"patched (series {series.sha256[:8]})"
    if dist.version != series.version:
        raise RefusedError(f"{name}: the series is for {series.version}; pip install ms-swift=={series.version}")
    there = found_series(site)
    if there not in {None, series.sha256}:
        raise RefusedError(f"{name}: has another series ({there}); take that out first, or install ms-swift anew")
    if action == "check":
        found = sums(contents(site, series))
        whole = there is not None and found == series.after
        print(f"{name}: {patched if whole else 'plain' if found == series.before else 'half patched'}")
        return 0 if whole else 1
    changed = change(dist, series, action)
    print(f"{name}: {'' if changed else 'already '}{patched if action == 'apply' else 'plain'}")
    return 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Put btrm's patch series into an installed ms-swift.")
    parser.add_argument("--target", type=Path, help="a folder like site-packages; this Python's otherwise")
    actions = parser.add_mutually_exclusive_group()
    actions.add_argument("--check", action="store_const", const="check", dest="action", help="only say what is there")
    actions.add_argument("--reverse", action="store_const", const="reverse", dest="action", help="take the series out")
    asked = parser.parse_args()
    try:
        return run(asked.target, asked.action or "apply")
    except (RefusedError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
