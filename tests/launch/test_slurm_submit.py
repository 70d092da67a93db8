"""Submissions on a real Slurm: sent, cut by its limits, hurt, and complete in the end."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from leaks import holding
from sent_jobs import newest, progressed

from btrm.launch.cluster import Options, cluster_plan, describe
from btrm.launch.control import resend
from btrm.launch.plan import get_experiment
from btrm.launch.site import load_site
from btrm.launch.slurm import live_jobs
from btrm.launch.submission import submissions
from btrm.onebox.box import OneBox
from btrm.records import read_judgements
from btrm.runs import read_manifest
from btrm.stages import verify_run
from btrm.submit import main

HERE = Path(__file__).parent
STUDY = f"{HERE / 'slurm_study.py'}:light"
CANARY = "canary-3f9a71c2"
SITE = """
executor = "slurm"
partition = "low"
python = "{python}"
warn_s = 5
backoff_s = 1
queue_interval_s = 0.3
patrol_s = 0
"""


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where faults are asked for, with the Python of a site `tried` in it; jobs read its files."""
    folder = tmp_path / "faults"
    folder.mkdir()
    python = folder / "python"
    python.write_text(f"#!{sys.executable}\n{(HERE / 'stand_in_python.py').read_text()}")
    python.chmod(0o755)
    (folder / "tried.toml").write_text(SITE.format(python=python))
    monkeypatch.setenv("BTRM_SITE", str(folder / "tried.toml"))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


def pipeline(run: Path, *words: str) -> int:
    return main(["pipeline", "--experiment", STUDY, "--run", str(run), *words])


def teacher(run: Path, *words: str) -> int:
    """Submit the teacher alone, its pairs being there already."""
    assert main(["pairs", "--experiment", STUDY, "--run", str(run), "--site", "local"]) == 0
    return main(["teacher", "--experiment", STUDY, "--run", str(run), *words])


def queue(box: OneBox, *words: str) -> list[str]:
    return box.run("squeue", "--noheader", *words).splitlines()


def drained(box: OneBox, timeout_s: float = 240) -> None:
    box.wait_until("an empty queue", lambda: not queue(box), timeout_s)


def sbatch_calls(run: Path) -> list[str]:
    return [job.key for job in newest(run).sent()]


def rows(run: Path) -> list[tuple[str, int]]:
    table = read_judgements(run / "teacher/judgements.parquet")
    return sorted((row["label_id"], row["side"]) for row in table.to_pylist())


@pytest.mark.slow
def test_a_pipeline_completes_and_leaks_no_secret(
    slurm: Callable[..., OneBox],
    run: Path,
    faults: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    box = slurm(nodes=2)
    first = box.run("sbatch", "--parsable", "--hold", "--partition=low", "--output=/dev/null", "--wrap=true")
    for name in ("ANTHROPIC_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, CANARY)
    monkeypatch.setenv("SBATCH_PARTITION", "nowhere")  # would win over the script that --dry-run shows
    words = ["--shards", "2", "--after", first]
    assert pipeline(run, *words, "--dry-run") == 0
    shown = capsys.readouterr().out
    assert not run.exists() and len(queue(box)) == 1
    assert pipeline(run, *words) == 0
    assert "submitted" in capsys.readouterr().out
    assert pipeline(run, *words) == 2
    assert "under way as" in capsys.readouterr().err
    assert queue(box, "--format=%r", "--name=" + f"btrm-{newest(run).name}-pairs") == ["Dependency"]
    sent = newest(run)
    ids = {job.key: job.job_id for job in sent.sent()}
    exact = shown.replace("/NAME", f"/{sent.name}").replace("-NAME-", f"-{sent.name}-")
    exact = re.sub(r"'((?:afterok|afterany):[^']*)'", r"\1", exact)
    for key, number in ids.items():
        exact = exact.replace(f"<{key}>", number)
        script = (sent.directory / "scripts" / f"{key}.sh").read_text()
        assert f"--- {key}\n{script.rstrip()}\n" in f"{exact}\n"
    box.run("scontrol", "release", first)
    lines: set[bytes] = set()
    deadline = time.monotonic() + 240
    while queue(box) and time.monotonic() < deadline:
        lines |= {cmdline(pid) for pid in Path("/proc").iterdir() if pid.name.isdigit()}
        time.sleep(0.1)
    assert read_manifest(run / "sft_data") is not None and verify_run(run) == []
    assert sorted(ids) == ["control", "pairs", "sft_data", "teacher.0", "teacher.commit"]
    assert any(b"btrm.launch.job" in line for line in lines) and not any(CANARY.encode() in line for line in lines)
    assert holding(CANARY, run) == [] and holding(CANARY, box.root) == []
    environs = [json.loads(path.read_text()) for path in faults.glob("environ.*")]
    assert len(environs) == 6 and all(CANARY not in value for environ in environs for value in environ.values())
    assert {environ["SLURM_CONF"] for environ in environs} == {str(box.conf)}
    assert pipeline(run, "--shards", "2") == 0
    assert "nothing to do" in capsys.readouterr().out and len(submissions(run)) == 1
    assert pipeline(run, "--set", "pairs.seed=3") == 2  # before anything is sent
    assert "seed was 0, now 3" in capsys.readouterr().err and queue(box) == []


def cmdline(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.slow
@pytest.mark.usefixtures("faults")
def test_more_elements_than_an_array_may_have(slurm: Callable[..., OneBox], run: Path) -> None:
    box = slurm(nodes=4, cpus=1, max_array=5)
    assert teacher(run, "--shards", "23", "--array-parallelism", "6", "--wait") == 0
    assert sbatch_calls(run) == [*(f"teacher.{n}" for n in range(5)), "teacher.commit", "control"]
    states = list(newest(run).states())
    assert sorted(s.element for s in states if s.step == "teacher") == list(range(23))
    assert {s.last.outcome for s in states if s.last} == {"done"} and verify_run(run) == []
    assert len(rows(run)) == 240
    drained(box)


@pytest.mark.slow
@pytest.mark.usefixtures("faults")
def test_a_thousand_elements_are_a_few_calls(slurm: Callable[..., OneBox], run: Path) -> None:
    box = slurm(nodes=1, max_array=50)
    assert pipeline(run, "--shards", "1000", "--slurm", "hold=true") == 0  # how many rows there will be, nobody knows
    assert len(sbatch_calls(run)) == 20 + 4
    assert (
        len(queue(box, "-r", "--name=" + ",".join(f"btrm-{newest(run).name}-teacher.{n}" for n in range(20)))) == 1000
    )
    box.run("scancel", "--me")
    drained(box)


@pytest.mark.slow
@pytest.mark.usefixtures("faults")
def test_windows_where_the_queue_is_short(slurm: Callable[..., OneBox], run: Path) -> None:
    box = slurm(nodes=4, accounting=True)
    box.limit_submit(4)
    assert teacher(run, "--shards", "6", "--wait") == 0
    assert verify_run(run) == [] and len(rows(run)) == 240
    arrays = [job.array for job in newest(run).sent() if job.kind == "array"]
    assert arrays == ["0-2", "3-4", "5"]
    drained(box)


@pytest.mark.slow
def test_a_failure_stops_with_its_reason_and_is_sent_again_when_mended(
    slurm: Callable[..., OneBox], run: Path, faults: Path
) -> None:
    box = slurm(nodes=2)
    (faults / "fail.pairs").write_text("config")
    assert pipeline(run, "--shards", "2", "--wait") == 1
    stopped = newest(run).stopped()
    assert stopped is not None and stopped["cause"] == "bad_request" and "mended by hand" in stopped["reason"]
    drained(box)  # nothing waits for ever for what failed
    assert [s.step for s in newest(run).states()] == ["pairs"]
    (faults / "fail.pairs").unlink()
    assert "pairs" in [job.key for job in resend(newest(run), reset=True)]
    drained(box)
    assert newest(run).stopped() is None and verify_run(run) == [] and len(rows(run)) == 240


@pytest.mark.slow
def test_an_error_is_tried_again_and_stops_without_progress(
    slurm: Callable[..., OneBox], run: Path, faults: Path
) -> None:
    box = slurm(nodes=2)
    (faults / "fail.pairs").write_text("error")
    assert main(["pairs", "--experiment", STUDY, "--run", str(run), "--wait"]) == 1
    drained(box)
    stopped = newest(run).stopped()
    assert stopped is not None and stopped["cause"] == "no_progress" and "broken by hand" in stopped["reason"]
    assert [a.cause for a in newest(run).read_state("pairs", 0).attempts] == ["error", "error"]


@pytest.mark.slow
def test_killed_tasks_and_cancelled_elements_come_back(slurm: Callable[..., OneBox], run: Path, faults: Path) -> None:
    """kill -9 of one element in the middle, scancel of another that is pending, SIGURG as at the end of its time."""
    from btrm.onebox.faults import task_kill

    box = slurm(nodes=3, cpus=1)
    (faults / "slow").write_text("0.5")  # half a minute for each: none may be done before it is hurt
    assert teacher(run, "--shards", "4", "--concurrency", "1") == 0  # three run, the last waits for a node
    sent = newest(run)
    array = next(job.job_id for job in sent.sent() if job.kind == "array")

    box.wait_until("progress", lambda: progressed(sent, 0) and progressed(sent, 1))
    assert live_jobs(sent)[f"btrm-{sent.name}-teacher.0"] == array  # what a commit sent by hand has to wait for
    box.run("scancel", f"{array}_3")
    task_kill(box, f"{array}_0")
    box.run("scancel", "--signal=URG", f"{array}_1")
    box.wait_until("the stop", lambda: sent.read_state("teacher", 1).attempts[0].outcome == "stopped")
    (faults / "slow").write_text("0")
    drained(box)
    killed, warned = sent.read_state("teacher", 0).attempts, sent.read_state("teacher", 1).attempts
    assert [(a.outcome, a.cause) for a in killed] == [("lost", "killed"), ("done", "")]
    assert [(a.outcome, a.cause) for a in warned] == [("stopped", "timeout"), ("done", "")]
    assert killed[1].at_start > 0 and warned[1].at_start == warned[0].done > 0
    assert [job.array for job in sent.sent() if job.kind == "array"] == ["0-3", "3"]
    assert verify_run(run) == [] and len(set(rows(run))) == len(rows(run)) == 240


@pytest.mark.slow
def test_a_job_on_a_node_that_is_cut_off_gives_way_to_the_one_sent_in_its_place(
    slurm: Callable[..., OneBox], run: Path, faults: Path
) -> None:
    from btrm.onebox.faults import node_down
    from btrm.onebox.processes import step_tasks

    box = slurm(nodes=2)
    (faults / "slow").write_text("0.5")  # two minutes: the old one may not be done before it is told
    assert teacher(run, "--concurrency", "1") == 0
    sent = newest(run)
    job = sent.sent()[0].job_id

    def attempts() -> list[tuple[str, str]]:
        return [(attempt.outcome, attempt.cause) for attempt in sent.read_state("teacher", 0).attempts]

    box.wait_until("progress", lambda: progressed(sent, 0))
    # Else the old job's batch script, which lives on too, may put the job back after scancel has ended it.
    sent.requeue_mark(f"{job}.0").unlink()
    node_down(box, sent.read_state("teacher", 0).attempts[0].host)
    assert step_tasks(box.conf, job)  # it lives, and goes on judging
    box.run("scancel", job)
    box.wait_until("another attempt", lambda: len(attempts()) == 2)
    box.wait_until("the end of the old one", lambda: not step_tasks(box.conf, job))
    (faults / "slow").write_text("0")
    drained(box)
    assert attempts() == [("lost", "cancelled"), ("done", "")]
    assert len(set(rows(run))) == len(rows(run)) == 240 and verify_run(run) == []
    newer, log = sent.read_state("teacher", 0).attempts[1].job, (sent.logs / f"{job}_0_log.out").read_text()
    assert f"attempt 2 runs as job {newer}" in log or f"claimed by job {newer}; this attempt writes nothing more" in log


def test_a_plan_is_shown_without_any_cluster(run: Path, faults: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(faults))
    monkeypatch.delenv("SLURM_CONF", raising=False)
    site = load_site(str(faults / "tried.toml"))
    options = Options({"teacher": 2500}, parallelism=2)
    text = describe(cluster_plan(get_experiment(STUDY), run, site, options), site, options)
    assert "could not be checked:" in text and "no Slurm answers here" in text and not run.exists()
    arrays = [line for line in text.splitlines() if line.startswith("#SBATCH --array")]
    assert arrays == ["#SBATCH --array=0-1000%1", "#SBATCH --array=0-1000%1", "#SBATCH --array=0-497%1"]
    assert "afterok:<pairs>,afterany:<teacher.0>" in text
    assert shutil.which("sbatch") is None and "SLURM_CONF" not in os.environ
