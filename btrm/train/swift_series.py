"""The patch series for ms-swift that goes with this code, and whether the installed ms-swift has it.

With it, ms-swift's own GRPO trainer has the pair sampler and the floor of the std, as options. Without it, or with
another one, its options are left alone, and the adapter does the same.
"""

from __future__ import annotations

from importlib import metadata

from btrm.versions import LOCAL_VERSION, package_version

# The sha256 of the patches, one after the other; containers/patches/refresh.py writes it.
SERIES = "a8a272c5f78173a0c9f4a2603fe41751cbf65619e3c06ec30f0122345b5c9231"


def own_version(release: str) -> str:
    """Return how a release of ms-swift is called with this series in it."""
    return f"{release}{LOCAL_VERSION}{SERIES[:8]}"


def is_in() -> bool:
    """Say whether the installed ms-swift has this series in it."""
    return package_version("ms-swift") == own_version(metadata.version("ms-swift"))
