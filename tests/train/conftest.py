"""Fixtures of the trainers' tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from swift_trees import whole_copy
from trainer_support import request_of

from btrm.runs import RunManifest
from btrm.stages import execute


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that has seen a few texts of the toy task."""
    from btrm.train.toy_model import ToyModelConfig, make_toy_model

    folder = tmp_path_factory.mktemp("tiny") / "model"
    make_toy_model(ToyModelConfig(steps=30, hidden_size=64, heads=2, layers=1), folder)
    return folder


@pytest.fixture
def run_stage(tmp_path: Path) -> Callable[..., RunManifest]:
    """Prepare and execute a stage below tmp_path/run."""

    def run(stage: str, name: str | None = None, **values: Any) -> RunManifest:
        return execute(request_of(stage, tmp_path / "run", name, **values))

    return run


@pytest.fixture(scope="session")
def ms_swifts(tmp_path_factory: pytest.TempPathFactory, need_swift: None, need_patch: None) -> dict[str, Path]:  # noqa: ARG001
    """Copies of the installed ms-swift, plain and patched, to be put before it on PYTHONPATH."""
    root = tmp_path_factory.mktemp("swift")
    return {"plain": whole_copy(root / "plain", "--reverse"), "patched": whole_copy(root / "patched")}
