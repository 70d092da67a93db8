"""Fixtures that need a real Slurm: a cluster is up in 0.2 s (1 to 5 s with accounting), so each test has its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from components import missing

if TYPE_CHECKING:
    from btrm.onebox.box import OneBox


@pytest.fixture
def need_slurm() -> None:
    """Skip, or fail where required, without slurmctld, slurmd, the commands and munge."""
    _need("slurm", accounting=False)


@pytest.fixture
def need_slurmdbd() -> None:
    """Skip, or fail where required, without slurmdbd and a database for it."""
    _need("slurmdbd", accounting=True)


def _need(component: str, accounting: bool) -> None:
    from btrm.config import ConfigError
    from btrm.onebox.conf import require_packages

    try:
        require_packages(accounting)
    except ConfigError as error:
        missing(component, str(error))


@pytest.fixture
def short_path() -> Generator[Path]:
    """A folder whose path leaves room for sockets, which pytest's own folders do not."""
    folder = Path(tempfile.mkdtemp(prefix="btrm-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def slurm(
    short_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Generator[Callable[..., OneBox]]:
    """`slurm(nodes=2, …)` starts a cluster with OneBox's settings; SLURM_CONF names the one that was started last."""
    from btrm.onebox.box import OneBox

    with ExitStack() as clusters:

        def start(**settings: object) -> OneBox:
            request.getfixturevalue("need_slurmdbd" if settings.get("accounting") else "need_slurm")
            count = len(list(short_path.iterdir()))
            # A busy machine is no failed node: only tests of nodes that fall silent ask for less.
            usual = {"slurmd_timeout_s": 60}
            box = clusters.enter_context(OneBox(short_path / f"c{count}", **{**usual, **settings}))
            for name, value in box.env.items():
                monkeypatch.setenv(name, value)
            return box

        yield start
