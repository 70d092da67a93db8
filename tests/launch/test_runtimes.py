"""The same jobs in a bare environment, by Apptainer and by pyxis, on a real Slurm that takes their nodes away.

Here is no enroot, so `stand_in_pyxis.py` is srun there: srun's own words, mounts and variables are those of pyxis, the
image is real, and everything but the plugin itself is as on a cluster that has it.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from btrm.images import image_digest
from btrm.launch.submission import Submission, submissions
from btrm.onebox.box import OneBox
from btrm.records import read_judgements
from btrm.runs import RunManifest, read_manifest
from btrm.stages import verify_run
from btrm.submit import main

HERE = Path(__file__).parent
STUDY = f"{HERE / 'slurm_study.py'}:light"
PYTHON = "/opt/btrm/venv/bin/python"  # of the image
HOSTS_OWN = {"VIRTUAL_ENV": "/host/venv", "CONDA_PREFIX": "/host/conda", "PYTHONUSERBASE": "/host/base"}
SITE = """
executor = "slurm"
partition = "low"
warn_s = 5
backoff_s = 1
queue_interval_s = 0.3
patrol_s = 0
"""
# What Apptainer shows by itself is kept away, so that what jobs need is seen to be bound.
FIRST = ("--parsable", "--partition=high", "--exclusive", "--output=/dev/null")  # a job that comes first
ARGS = ["--no-mount", "tmp,cwd", "--scratch", "/tmp"]


@pytest.fixture
def faults(tmp_path: Path) -> Path:
    """The folder where faults are asked for."""
    folder = tmp_path / "faults"
    folder.mkdir()
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


def stand_in(faults: Path, name: str, python: str, source: str) -> Path:
    path = faults / name
    path.write_text(f"#!{python}\n{source}")
    path.chmod(0o755)
    return path


def site(faults: Path, runtime: str, image: Path | None) -> str:
    """Write a site's file, with a Python that can be slowed, and return its path."""
    lines = [SITE]
    source = (HERE / "stand_in_python.py").read_text()
    if runtime == "pyxis":
        real = shutil.which("srun")
        assert real is not None
        source_of_srun = (HERE / "stand_in_pyxis.py").read_text().replace("@srun@", real)
        (faults / "bin").mkdir()
        stand_in(faults / "bin", "srun", sys.executable, source_of_srun)
        lines.append(f"setup = ['export PATH={faults / 'bin'}:$PATH']")
    python = stand_in(faults, "python", sys.executable if image is None else PYTHON, source)
    if image is None:
        lines.append(f"python = '{python}'")
    else:
        args = ARGS if runtime == "apptainer" else []
        lines += ["[container]", f"runtime = '{runtime}'", f"image = '{image}'", f"binds = ['{faults}']"]
        lines += [f"python = '{python}'", "nv = false", f"args = {args}"]
    path = faults / "tried.toml"
    path.write_text("\n".join(lines))
    return str(path)


def newest(run: Path) -> Submission:
    return submissions(run)[-1]


def drained(box: OneBox) -> None:
    box.wait_until("an empty queue", lambda: not box.run("squeue", "--noheader"), 60)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["none", "apptainer", "pyxis"])
def test_jobs_that_are_stopped_come_back_and_end_alike(
    runtime: str,
    slurm: Callable[..., OneBox],
    run: Path,
    faults: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """Of two elements one is told that its time is up, the other one's node is taken by a job that comes first."""
    image: Path | None = request.getfixturevalue("cpu_image") if runtime != "none" else None
    box = slurm(nodes=2, cpus=1)
    for name, value in HOSTS_OWN.items():
        monkeypatch.setenv(name, value)
    Path(".env").write_text("")  # where submit is called is where jobs are
    (faults / "slow").write_text("0.5")
    study = ["--experiment", STUDY, "--run", str(run), "--site"]
    assert main(["pairs", *study, "local"]) == 0
    words = ["--shards", "2", "--set", "part_pairs=6"]
    assert main(["teacher", *study, site(faults, runtime, image), *words]) == 0
    sent = newest(run)
    array = next(job.job_id for job in sent.sent() if job.kind == "array")
    box.wait_until("progress", lambda: all(progress(sent, element) for element in (0, 1)))
    box.run("scancel", "--signal=URG", f"{array}_0")
    first = box.run("sbatch", *FIRST, f"--nodelist={sent.read_state('teacher', 1).attempts[0].host}", "--wrap=sleep 1")
    box.wait_until("the end of the first attempts", lambda: all(ended(box, sent, f"{array}_{n}") for n in (0, 1)), 30)
    (faults / "slow").write_text("0")
    drained(box)
    warned, taken = (sent.read_state("teacher", element).attempts for element in (0, 1))
    assert [(a.outcome, a.cause) for a in warned] == [("stopped", "timeout"), ("done", "")]
    assert [a.cause for a in taken] == ["preempted", ""] and taken[1].outcome == "done", first
    assert warned[1].job == f"{array}_0" and warned[1].restarts == 1 and warned[1].at_start == warned[0].done > 0
    assert [job.key for job in sent.sent()] == ["teacher.0", "teacher.commit", "control"] and sent.stopped() is None
    assert verify_run(run) == [] and len(read_judgements(run / "teacher/judgements.parquet")) == 240
    assert_recorded(read_manifest(run / "teacher"), sent, image)
    assert_environment(faults, runtime)


def progress(sent: Submission, element: int) -> bool:
    last = sent.read_state("teacher", element).last
    return last is not None and last.done > 0


def ended(box: OneBox, sent: Submission, job: str) -> bool:
    """Say whether the first start of an element is over: it is back in the queue, or starts again."""
    state = box.run("squeue", "--noheader", "--format=%t", f"--jobs={job}")
    return state == "PD" or len(sent.read_state("teacher", int(job.partition("_")[2])).attempts) > 1


def assert_recorded(manifest: RunManifest | None, sent: Submission, image: Path | None) -> None:
    code = sent.plan().code
    assert manifest is not None and code is not None and manifest.code == Path(code).name
    assert manifest.image == (str(image) if image else None)
    assert manifest.image_sha256 == (image_digest(str(image)) if image else None)


def assert_environment(faults: Path, runtime: str) -> None:
    """Slurm's variables are there, the host's own Python is not, and the working directory is the submission's."""
    environs = [json.loads(path.read_text()) for path in faults.glob("environ.*")]
    assert len(environs) >= 5  # two elements twice, their commit, the controller
    for environ in environs:
        assert environ["SLURM_JOB_ID"] and ".env" in environ["FILES_HERE"].split()
        kept = {name for name in HOSTS_OWN if name in environ}
        assert kept == (set(HOSTS_OWN) if runtime == "none" else set())
        assert ("APPTAINER_CONTAINER" in environ) == (runtime != "none")
