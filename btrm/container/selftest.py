"""What an image says of itself, checked from inside: `%test`, and `python -m btrm.container.selftest` at any time."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from btrm.container.lock import pins
from btrm.launch.snapshot import code_digest

HOME = Path("/opt/btrm")
RECORD = HOME / "image.json"
LOCK = HOME / "packages.lock"
_IMPORTS = ("torch", "transformers", "peft", "datasets", "pydantic", "pyarrow", "submitit", "btrm.stages")
_COMMANDS = (["btrm", "--help"], ["python", "-m", "btrm.submit", "--help"])


def problems(record: dict[str, Any]) -> Iterator[str]:
    """Yield what is not as the image's record says, a line each."""
    for check in (_lock, _code, _versions, _consistent, _imports, _entry_points, _patched):
        yield from check(record)


def _lock(record: dict[str, Any]) -> Iterator[str]:
    found = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if found != record["lock_sha256"]:
        yield f"{LOCK}: sha256 {found}, the record says {record['lock_sha256']}"


def _code(record: dict[str, Any]) -> Iterator[str]:
    if (found := code_digest()) != record["code"]:
        yield f"btrm's code: {found}, the record says {record['code']}"


def _versions(_: dict[str, Any]) -> Iterator[str]:
    for name, version in pins(LOCK).items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            found = "not installed"
        if found != version:
            yield f"{name}: {found}, locked {version}"


def _consistent(record: dict[str, Any]) -> Iterator[str]:
    """Yield what pip finds missing or in conflict, but for what the lock leaves out on purpose."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "check"]
    done = subprocess.run(pip, capture_output=True, text=True)
    left_out = tuple(f" requires {name}, which is not installed." for name in record["left_out"])
    lines = done.stdout.splitlines() if done.returncode else []
    yield from (line for line in lines if not line.endswith(left_out))


def _imports(record: dict[str, Any]) -> Iterator[str]:
    names = (*_IMPORTS, *(["vllm"] if record["driver"] is None else []))  # the CUDA build wants a driver
    yield from (f"import {name}: {why}" for name in names if (why := _fails(lambda name=name: import_module(name))))


def _entry_points(_: dict[str, Any]) -> Iterator[str]:
    yield from (f"{name}: not on PATH" for name in ("swift", "vllm") if shutil.which(name) is None)
    for words in _COMMANDS:
        if shutil.which(words[0]) is None:
            yield f"{words[0]}: not on PATH"
        elif (done := subprocess.run(words, capture_output=True, text=True)).returncode:
            yield f"{' '.join(words)}: {done.stderr.strip().splitlines()[-1:]}"


def _patched(record: dict[str, Any]) -> Iterator[str]:
    """Yield whether ms-swift is the patched one, by the parts that the patches bring."""
    if why := _fails(lambda: import_module("swift.rlhf_trainers.pair_sampler").PairRepeatSampler):
        yield f"swift.rlhf_trainers.pair_sampler.PairRepeatSampler: {why}"
    if "min_reward_std" not in {field.name for field in fields(import_module("swift.arguments").RLHFArguments)}:
        yield "ms-swift has no --min_reward_std"
    marker = Path(str(metadata.distribution("ms-swift").locate_file("swift/btrm_patches.json")))
    series = json.loads(marker.read_text())["series"] if marker.exists() else "not patched"
    if series != record["patches_sha256"]:
        yield f"ms-swift's patches: {series}, the record says {record['patches_sha256']}"


def _fails(action: Callable[[], object]) -> str:
    """Return why something raises, '' where it does not."""
    try:
        action()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def main() -> int:
    """Print what is wrong and return 1, or the image's record and 0."""
    record = json.loads(RECORD.read_text())
    found = list(problems(record))
    for problem in found:
        print(f"FAIL {problem}")
    if not found:
        print(f"{record['variant']}: {len(pins(LOCK))} packages as locked, patched ms-swift, btrm {record['version']}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
