"""A wheel built from the project works where neither the checkout nor torch is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from btrm.launch.snapshot import code_digest, wheel_digest

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "transformers", "vllm", "swift", "pandas", "datasets", "wandb")

BLOCK = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the installed wheel, where every heavy package fails to import."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("btrm-*.whl")
    site = folder / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True, capture_output=True)
    (site / "sitecustomize.py").write_text(BLOCK)
    return site


def run(site: Path, *words: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, "-m", *words], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_experiments_sites_and_prompts_ship(installed: Path) -> None:
    where = run(installed, "btrm.cli", "experiments")
    assert "toy.demo" in where and "published.hh_exp1_graded" in where
    assert "local" in run(installed, "btrm.cli", "sites")
    assert (installed / "btrm" / "train" / "deepspeed" / "zero3.json").is_file()
    code = f"import btrm, sys; sys.exit(not btrm.__file__.startswith({str(installed)!r}))"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(installed)}, check=True)


@pytest.mark.slow
def test_a_launcher_needs_no_torch(installed: Path, tmp_path: Path) -> None:
    root = str(tmp_path / "run")
    plan = run(installed, "btrm.submit", "pipeline", "--experiment", "toy.demo", "--run", root, "--dry-run")
    assert "grpo" in plan
    small = ["--n-pairs", "train=20,validation=2,test=2"]
    for stage, flags in (("pairs", small), ("teacher", []), ("sft_data", [])):
        run(installed, "btrm.submit", stage, "--experiment", "toy.demo", "--run", root, *flags)
    assert "sft_data" in run(installed, "btrm.cli", "show", root)
    assert "every file as claimed" in run(installed, "btrm.cli", "verify", root)


@pytest.mark.slow
def test_the_code_has_one_name_in_a_checkout_in_a_wheel_and_where_it_is_installed(installed: Path) -> None:
    (wheel,) = installed.parent.glob("btrm-*.whl")
    code = "from btrm.launch.snapshot import code_digest; print(code_digest())"
    env = {**os.environ, "PYTHONPATH": str(installed)}
    said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == wheel_digest(wheel) == code_digest()
