"""A site for tests on a one-box cluster: the shipped one, but impatient."""

from __future__ import annotations

from pathlib import Path

_SITE = """
executor = "slurm"
partition = "low"
warn_s = 5
backoff_s = 1
patrol_s = 20
queue_interval_s = 1
"""


def write_site(folder: Path) -> Path:
    """Write the site file and return its path."""
    path = folder / "impatient.toml"
    path.write_text(_SITE)
    return path
