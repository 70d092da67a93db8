"""The whole pipeline on a real Slurm that a seeded saboteur breaks all the time ends as if nothing had happened."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from onebox_site import write_site
from saboteur import Saboteur

from btrm.launch.control import unfinished
from btrm.launch.slurm import ask
from btrm.launch.submission import Submission, submissions
from btrm.onebox.box import OneBox
from btrm.records import read_judgements

EXPERIMENT = f"{Path(__file__).parent / 'tiny_toy.py'}:tiny"
CELLS = 48
FAULTS = 10
SEEDS = [*(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]
SEEDS += [*(pytest.param(seed, marks=pytest.mark.soak) for seed in range(3, 23))]


def submit(run: Path, *flags: str) -> None:
    command = [sys.executable, "-m", "btrm.submit", "pipeline", "--experiment", EXPERIMENT, "--run", str(run), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same experiment in the foreground of this machine."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    submit(run, "--site", "local")
    return run


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path | None]:
    """A file system that can be filled without harm; None where this user may not mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = (
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600m", "tmpfs", str(disk)], check=False).returncode == 0
    )
    yield disk if mounted else None
    if mounted:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_broken_cluster_changes_nothing(
    seed: int,
    need_swift: None,  # noqa: ARG001
    slurm: Callable[..., OneBox],
    undisturbed: Path,
    small_disk: Path | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    box = slurm(nodes=4, gpus=0, slurmd_timeout_s=5, accounting=seed % 2 == 0)
    run = (small_disk or tmp_path) / "run"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    started = time.monotonic()
    submit(run, "--site", str(write_site(tmp_path)))
    (submission,) = submissions(run)
    plan = submission.plan()
    saboteur = Saboteur(box, submission, small_disk, seed, FAULTS)
    saboteur.run(lambda: not unfinished(plan))
    _wait(run)
    disk = "" if small_disk else " (no disk that this user may fill)"
    took = f"{time.monotonic() - started:.0f} s"
    report = f"seed {seed}: {took}, {len(saboteur.done)} faults{disk}: {'; '.join(saboteur.done)}"
    print(report)
    _tell(report)
    assert submission.stopped() is None, report
    assert not unfinished(plan), report
    assert_equal(run, undisturbed)
    done = subprocess.run([sys.executable, "-m", "btrm.cli", "verify", str(run)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def _wait(run: Path, timeout_s: float = 600.0) -> None:
    (submission,) = submissions(run)
    plan, deadline = submission.plan(), time.monotonic() + timeout_s
    quiet = 0
    while unfinished(plan) and submission.stopped() is None:
        quiet = 0 if _queued(submission) else quiet + 1
        assert quiet < 5, "no job is left and the run is not complete"
        assert time.monotonic() < deadline
        time.sleep(1.0)


def _queued(submission: Submission) -> bool:
    """Say whether any job is left, a controller that begins just now and the patrol among them."""
    names = ask(["squeue", "--me", "--noheader", "--format=%j"])
    return names.returncode != 0 or f"btrm-{submission.name}-" in names.stdout


def assert_equal(run: Path, undisturbed: Path) -> None:
    ours, theirs = (read_judgements(path / "judge" / "judgements.parquet") for path in (run, undisturbed))
    keys = list(zip(*(ours[name].to_pylist() for name in ("judge", "seed", "label_id", "side", "sample")), strict=True))
    assert len(set(keys)) == len(keys)
    assert len({(judge, seed) for judge, seed, *_ in keys}) == CELLS
    columns = [name for name in ours.column_names if name not in {"model_hash", "adapter_hash"}]
    assert ours.select(columns).equals(theirs.select(columns))
    assert (run / "summary.csv").read_bytes() == (undisturbed / "summary.csv").read_bytes()


def _tell(report: str) -> None:
    """Add a line to the soak's record where one is asked for."""
    if path := os.environ.get("BTRM_SOAK_REPORT"):
        with Path(path).open("a") as file:
            file.write(report + "\n")
