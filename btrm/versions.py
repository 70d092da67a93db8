"""Which release of a package is installed, and which patches are in it. Standard library only: a bare node says it."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

LOCAL_VERSION = "+btrm."  # what stands between a release and the name of the patches in it


def package_version(name: str) -> str:
    """Return a package's version; that of a patched ms-swift names the series: 4.6.0+btrm.abcdef12.

    Raises PackageNotFoundError.
    """
    dist = metadata.distribution(name)
    marker = Path(str(dist.locate_file("swift/btrm_patches.json")))
    if name != "ms-swift" or not marker.is_file():
        return dist.version
    return f"{dist.version}{LOCAL_VERSION}{json.loads(marker.read_text())['series'][:8]}"
