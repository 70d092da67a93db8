"""The same jobs in a bare environment, by Apptainer and by pyxis, on a real Slurm that takes their nodes away.

Here is no enroot, so `stand_in_pyxis.py` is srun there: srun's own words, mounts and variables are those of pyxis, the
image is real, and everything but the plugin itself is as on a cluster that has it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from sent_jobs import newest, progressed

from btrm.cli import main as btrm
from btrm.images import image_digest
from btrm.launch.jobs import make_jobs
from btrm.launch.last_words import refusal
from btrm.launch.runtime import exec_words
from btrm.launch.sbatch import Request, script
from btrm.launch.site import Container, Site, load_site
from btrm.launch.submission import Plan, PlannedStep, Submission, new_submission
from btrm.onebox.box import OneBox
from btrm.records import read_judgements
from btrm.runs import Resources, RunManifest, read_manifest
from btrm.stages import verify_run
from btrm.submit import main

HERE = Path(__file__).parent
STUDY = f"{HERE / 'slurm_study.py'}:light"
PYTHON = "/opt/btrm/venv/bin/python"  # of the image
HOSTS_OWN = {"VIRTUAL_ENV": "/host/venv", "CONDA_PREFIX": "/host/conda", "PYTHONUSERBASE": "/host/base"}
SWITCHED = {"APPTAINER_CLEANENV": "1", "SINGULARITY_CONTAINALL": "1", "SINGULARITYENV_PYTHONHOME": "/host"}
LIBRARIES = "/host/lib"
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


def drained(box: OneBox) -> None:
    box.wait_until("an empty queue", lambda: not box.run("squeue", "--noheader"), 240)


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
    switched = SWITCHED if runtime == "apptainer" else {}
    for name, value in {**HOSTS_OWN, **switched, "LD_LIBRARY_PATH": LIBRARIES}.items():
        monkeypatch.setenv(name, value)
    Path(".env").write_text("")  # where submit is called is where jobs are
    (faults / "slow").write_text("0.5")  # a minute of work: neither may be done before it is hurt
    study = ["--experiment", STUDY, "--run", str(run), "--site"]
    assert main(["pairs", *study, "local"]) == 0
    words = ["--shards", "2", "--concurrency", "1"]
    assert main(["teacher", *study, site(faults, runtime, image), *words]) == 0
    sent = newest(run)
    array = next(job.job_id for job in sent.sent() if job.kind == "array")
    box.wait_until("progress", lambda: all(progressed(sent, element) for element in (0, 1)))
    box.run("scancel", "--signal=URG", f"{array}_0")
    first = box.run("sbatch", *FIRST, f"--nodelist={sent.read_state('teacher', 1).attempts[0].host}", "--wrap=sleep 1")
    box.wait_until("the end of the first attempts", lambda: all(ended(box, sent, f"{array}_{n}") for n in (0, 1)))
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
        assert (environ.get("LD_LIBRARY_PATH") == LIBRARIES) == (runtime == "none")
        assert ("APPTAINER_CONTAINER" in environ) == (runtime != "none")


@pytest.mark.slow
def test_by_hand_an_image_has_the_hosts_shared_memory_and_gives_the_commands_exit_code(
    tmp_path: Path, cpu_image: Path
) -> None:
    """Loaders of batches pass tensors through /dev/shm; with --contain it would be a small one of the image's own."""
    image = Container(image=str(cpu_image), nv=False, binds=(f"{tmp_path}:/there:ro",), args=("--no-mount", "cwd"))
    (tmp_path / "file").write_text("seen")
    with tempfile.NamedTemporaryFile("w", dir="/dev/shm") as shared:
        shared.write("shared")
        shared.flush()
        unseen = HERE if not HERE.is_relative_to("/tmp") else "/nowhere"  # /tmp is shown to it
        code = f"cat {shared.name} /there/file && pwd && ! touch /there/x && test ! -e {unseen} && exit 75"
        words = exec_words(image, [], tmp_path, ["bash", "-c", code])
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == (f"sharedseen{tmp_path}\n", 75), done.stderr


@pytest.mark.slow
def test_an_image_that_was_exchanged_is_not_run_and_is_once_it_is_back(
    slurm: Callable[..., OneBox], run: Path, faults: Path, cpu_image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    box = slurm(nodes=1)
    (scratch := run.with_name("scratch")).mkdir()
    Path("runs").symlink_to(scratch)  # as on most clusters; the folder submitted from is bound over the run
    run = Path("runs/study").absolute()
    image = faults / "image.sif"
    image.symlink_to(cpu_image)
    before = box.run("sbatch", "--parsable", "--exclusive", "--partition=low", "--output=/dev/null", "--wrap=sleep 999")
    study = ["--experiment", STUDY, "--run", str(run), "--site", site(faults, "apptainer", image)]
    assert main(["pairs", *study]) == 0
    exchange(image, HERE / "test_runtimes.py")
    box.run("scancel", before)
    drained(box)
    stopped, (refused,) = newest(run).stopped(), newest(run).read_state("pairs", 0).attempts
    assert stopped is not None and stopped["cause"] == refused.cause == "image_changed"
    assert str(image) in stopped["reason"] and "retry" in stopped["advice"]
    assert [job.key for job in newest(run).sent()] == ["pairs", "control"]  # nothing was tried again
    capsys.readouterr()
    btrm(["status", str(run)])
    assert "image_changed" in capsys.readouterr().out
    exchange(image, cpu_image)
    assert btrm(["retry", str(run)]) == 0
    drained(box)
    assert_recorded(read_manifest(run / "pairs"), newest(run), image)


def exchange(link: Path, target: Path) -> None:
    link.unlink()
    link.symlink_to(target)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["apptainer", "pyxis"])
def test_every_node_of_a_job_is_in_the_image_and_its_exit_code_is_the_jobs(
    runtime: str, slurm: Callable[..., OneBox], run: Path, faults: Path, cpu_image: Path
) -> None:
    box = slurm(nodes=2)
    profile = load_site(site(faults, runtime, cpu_image))
    stand_in(faults, "python", PYTHON, TWO_RANKS)
    need = Resources(nodes=2, cpus=1, mem_gb=1, time_min=5)
    plan = Plan(root=str(run), steps=(PlannedStep(name="grpo", stage="grpo", config={}, resources=need),), env={})
    copied = plan.model_copy(update={"image_sha256": image_digest(str(cpu_image)), "image_stat": "another file's"})
    submission, said = two_nodes(box, run, copied, profile)
    assert "ExitCode=3:0" in said, said
    assert len([*submission.images.iterdir()]) == 1  # both nodes are this machine
    ranks = [json.loads((faults / f"rank.{rank}").read_text()) for rank in (0, 1)]
    assert [rank["SLURM_NODEID"] for rank in ranks] == ["0", "1"] and ranks[0]["MASTER_ADDR"]
    assert all(rank["APPTAINER_CONTAINER"] and rank["SLURM_NNODES"] == "2" for rank in ranks)
    assert len({(rank["MASTER_ADDR"], rank["MASTER_PORT"]) for rank in ranks}) == 1
    assert profile.container is not None
    other = profile.model_copy(update={"container": profile.container.model_copy(update={"image": __file__})})
    submission, said = two_nodes(box, run, copied, other)
    assert "ExitCode=78:0" in said and f"\nbtrm: image_changed: {__file__} is not there" in said, said
    (log,) = submission.logs.glob("*_0_log.out")
    found = refusal(log)
    assert found is not None and found[0] == "image_changed"


def two_nodes(box: OneBox, run: Path, plan: Plan, profile: Site) -> tuple[Submission, str]:
    """Return a submission whose one job has ended, with what Slurm says of that job, and its log."""
    submission = new_submission(run, plan)
    submission.logs.mkdir()
    made = submission.directory / "job.sh"
    made.write_text(script(make_jobs(plan.steps, 1001)[0], Request(submission, plan, profile)))
    job = box.run("sbatch", "--parsable", str(made))
    drained(box)
    return submission, box.run("scontrol", "show", "job", job) + (submission.logs / f"{job}_0_log.out").read_text()


TWO_RANKS = """
import json, os, pathlib, sys, time
here, rank = pathlib.Path(__file__).parent, os.environ["SLURM_PROCID"]
(here / f"rank.{rank}.part").write_text(json.dumps(dict(os.environ)))
(here / f"rank.{rank}.part").rename(here / f"rank.{rank}")
while rank == "0" and not (here / "rank.1").exists():
    time.sleep(0.1)
if rank == "0":  # the first to fail ends the others: let them be gone, and srun hear of that
    other = pathlib.Path("/proc", json.loads((here / "rank.1").read_text())["SLURM_TASK_PID"])
    while other.exists():
        time.sleep(0.1)
    time.sleep(1)
sys.exit(3 if rank == "0" else 0)
"""
