"""Fixtures for all tests. A component named in BTRM_REQUIRE that is missing fails; elsewhere its tests are skipped."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from components import missing
from hypothesis import HealthCheck, settings

# A busy machine is no failure: neither an example nor the making of examples has a time.
settings.register_profile("btrm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("btrm")
pytest_plugins = ("slurm_fixtures", "container_fixtures", "image_fixtures")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real preference data that stands beside the project in its CI."""
    path = Path(__file__).parent.parent.parent / "shared" / "data"
    if not path.is_dir():
        missing("shared", f"{path} is not here")
    return path


@pytest.fixture(scope="session")
def need_vllm() -> None:
    """Skip, or fail where required, without vLLM."""
    _need("vllm", "vllm")


@pytest.fixture(scope="session")
def need_swift() -> None:
    """Skip, or fail where required, without ms-swift."""
    _need("swift", "swift")


@pytest.fixture(scope="session")
def need_teacher() -> None:
    """Skip, or fail where required, without the APIs' SDKs and what their test server is made of."""
    for module in ("anthropic", "openai", "google.genai", "aiohttp"):
        _need("teacher", module)


@pytest.fixture(scope="session")
def need_patch() -> None:
    """Skip, or fail where required, without GNU patch."""
    if shutil.which("patch") is None:
        missing("patch", "there is no GNU patch")


def _need(component: str, module: str) -> None:
    from importlib.util import find_spec

    parent = module.partition(".")[0]
    if find_spec(parent) is None or find_spec(module) is None:
        missing(component, f"{module} is not installed")


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reads the developer's own site, .env or hub."""
    monkeypatch.setenv("BTRM_SITE", "local")  # elsewhere sbatch on PATH decides
    monkeypatch.delenv("BTRM_SITES_DIR", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in [n for n in os.environ if n.startswith(("BT_", "WANDB_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
