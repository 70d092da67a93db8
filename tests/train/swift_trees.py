"""Copies of the installed ms-swift, to be patched: whole, or only what the patch series touches."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest

from btrm.plugins import shipped

PATCHES = shipped("containers") / "patches"
SERIES = PATCHES / "ms-swift-4.6.0"
APPLY = PATCHES / "apply.py"


def site_packages() -> Path:
    """Return where ms-swift is installed."""
    return Path(str(metadata.distribution("ms-swift").locate_file("")))


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import containers/patches/NAME.py for one test."""
    monkeypatch.syspath_prepend(str(PATCHES))
    for module in ("apply", "refresh"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return importlib.import_module(name)


def touched() -> list[str]:
    """Return the paths of the files of the series."""
    return list(json.loads((SERIES / "series.json").read_text())["files"])


def slim_copy(to: Path) -> Path:
    """Copy as much of ms-swift as can be patched: plain, whatever is installed."""
    site = site_packages()
    (info,) = site.glob("ms_swift-*.dist-info")
    shutil.copytree(info, to / info.name)
    for path in ("swift/__init__.py", "swift/btrm_patches.json", *touched()):
        if (site / path).exists():
            (to / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(site / path, to / path)
    assert patch(to, "--reverse").returncode == 0
    return to


def whole_copy(to: Path, *options: str) -> Path:
    """Copy ms-swift, then apply the series, or with --reverse take it out."""
    site = site_packages()
    (info,) = site.glob("ms_swift-*.dist-info")
    shutil.copytree(info, to / info.name)
    shutil.copytree(site / "swift", to / "swift")
    done = patch(to, *options)
    assert done.returncode == 0, done.stderr
    return to


def patch(target: Path, *options: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run apply.py on a copy, with nothing but the standard library at hand."""
    command = [sys.executable, "-I", "-S", str(APPLY), "--target", str(target), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environ or None)
