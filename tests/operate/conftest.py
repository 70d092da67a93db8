from __future__ import annotations

from pathlib import Path

import pytest
from run_support import FakeQueue


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeQueue:
    """A cluster's commands that say what they are told."""
    return FakeQueue(tmp_path, monkeypatch)
