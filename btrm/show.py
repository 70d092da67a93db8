"""What a run holds, from its disk alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from btrm.config import ConfigError
from btrm.runs import MANIFEST, REQUEST, read_manifest, read_request
from btrm.stage_table import STAGES

_LONGEST = 500  # characters of a result that are shown


def show(directory: Path) -> str:
    """Return a run's stages, a line each, and the results of the complete ones."""
    found = sorted({path.parent for name in (REQUEST, MANIFEST) for path in directory.rglob(name)}, key=_order)
    if not found:
        raise ConfigError(f"{directory}: no run here ({REQUEST} and {MANIFEST} not found)")
    return "\n".join(_line(folder, directory) for folder in found)


def _order(directory: Path) -> tuple[int, str]:
    """Sort stages as data passes through them."""
    found = read_manifest(directory) or read_request(directory)
    assert found is not None
    return list(STAGES).index(found.stage), str(directory)


def _line(directory: Path, root: Path) -> str:
    manifest, request = read_manifest(directory), read_request(directory)
    if manifest is None:
        name = request.name if request else directory.name
        return f"{name:<12} not complete       {directory}"
    files = len(manifest.outputs)
    size = sum(output.bytes for output in manifest.outputs.values()) / 1e6
    results = json.dumps({name: _short(value) for name, value in manifest.results.items()}, ensure_ascii=False)
    where = directory.relative_to(root) if directory != root else Path()
    return (
        f"{manifest.name:<12} complete {manifest.seconds:8.1f} s  {manifest.finished}  {manifest.fingerprint}  "
        f"{files} files, {size:.1f} MB in {where}\n{'':<13}{results}"
    )


def _short(value: Any) -> Any:
    """Return a result, or that it is long: what a prompt begins with is for reading in the manifest."""
    length = len(json.dumps(value, ensure_ascii=False))
    return value if length <= _LONGEST else f"({length} characters, see {MANIFEST})"
