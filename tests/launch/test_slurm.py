from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from btrm.config import ConfigError
from btrm.launch import slurm
from btrm.launch.jobs import make_jobs
from btrm.launch.sbatch import Request
from btrm.launch.site import Site
from btrm.launch.slurm import NoRoomError, dependencies, fitting, job_environ, live_jobs, send
from btrm.launch.submission import Plan, PlannedStep, Submission, new_submission
from btrm.runs import Resources, StageError

SITE = Site(name="tried", executor="slurm", partition="low")
CPU = Resources(cpus=1, mem_gb=1, time_min=30)
STEPS = (
    PlannedStep(name="pairs", stage="pairs", config={}, resources=CPU),
    PlannedStep(name="teacher", stage="teacher", config={}, resources=CPU, needs=("pairs",), elements=7, parallelism=1),
)
JOBS = make_jobs(STEPS, 4)


@pytest.fixture
def submission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Submission:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(slurm, "_PAUSE_S", 0.0)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    (tmp_path / "bin").mkdir()
    return new_submission(tmp_path / "run", Plan(root=str(tmp_path / "run"), steps=STEPS, env={}))


def command(name: str, *lines: str) -> None:
    """Put a stand-in for a command of Slurm on PATH; `calls` beside it counts its calls, `n` is their number."""
    folder = Path(os.environ["PATH"])
    counted = (
        f"calls = pathlib.Path({str(folder / f'{name}.calls')!r}); calls.open('a').write(' '.join(sys.argv) + '\\n')"
    )
    text = "\n".join([f"#!{sys.executable}", "import pathlib, sys", counted,
                      "n = len(calls.read_text().splitlines())", *lines])  # fmt: skip
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def calls(name: str) -> list[str]:
    path = Path(os.environ["PATH"]) / f"{name}.calls"
    return path.read_text().splitlines() if path.exists() else []


def request_of(submission: Submission, **more: object) -> Request:
    return Request(submission, submission.plan(), SITE.model_copy(update=more))


def test_no_secret_and_nothing_of_another_job_is_passed_on() -> None:
    given = dict.fromkeys(
        ["PATH", "SLURM_CONF", "SLURM_JOB_ID", "SBATCH_PARTITION", "SRUN_CPUS_PER_TASK", "HF_TOKEN", "MY_PASSWORD",
         "ANTHROPIC_API_KEY", "aws_secret", "TOKENIZERS_PARALLELISM", "KEYBOARD", "BTRM_OWNER", "BTRM_LEASES",
         "BTRM_IMAGE", "BTRM_IMAGE_SHA256", "BTRM_CODE"], "x",
    )  # fmt: skip
    assert sorted(job_environ(given)) == ["KEYBOARD", "PATH", "SLURM_CONF", "TOKENIZERS_PARALLELISM"]


def test_only_jobs_of_the_submission_count_whatever_others_are_called(
    submission: Submission, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = f"btrm-{submission.name}"
    rows = ["1 R my own name, with spaces", f"2 PD {mine}-pairs", f"3 PD {mine}-control", f"4 CG {mine}-control2"]
    command("squeue", f"print({chr(10).join(rows)!r})")
    assert live_jobs(submission) == {f"{mine}-pairs": "2", f"{mine}-control": "3", f"{mine}-control2": "4"}
    monkeypatch.setenv("SLURM_JOB_ID", "3")
    assert f"{mine}-control" not in live_jobs(submission)
    monkeypatch.delenv("SLURM_JOB_ID")
    for state in ("R", "CG"):
        command("squeue", f"print('3 {state} {mine}-control')")
        assert live_jobs(submission) == {}  # it may have looked already


def test_squeue_may_fail_for_a_while(submission: Submission) -> None:
    command("squeue", "sys.exit('slurm_load_jobs error: Unable to contact slurm controller') if n < 3 else None")
    assert live_jobs(submission) == {} and len(calls("squeue")) == 3
    command("squeue", "sys.exit('Unable to contact slurm controller')")
    with pytest.raises(StageError, match="squeue does not answer: Unable to contact"):
        live_jobs(submission, tries=2)


def test_each_job_is_on_record_with_what_it_waits_for(submission: Submission) -> None:
    command("sbatch", "print(f'{n};cluster')")
    sent = send(JOBS, request_of(submission), 100)
    assert [(job.key, job.job_id, job.array) for job in sent] == [
        ("pairs", "1", ""),
        ("teacher.0", "2", "0-3"),
        ("teacher.1", "3", "0-2"),
        ("teacher.commit", "4", ""),
        ("control", "5", ""),
    ]
    assert [job.job_id for job in submission.sent()] == ["1", "2", "3", "4", "5"]
    waits = [line for path in sorted((submission.directory / "scripts").iterdir())
             for line in path.read_text().splitlines() if "--dependency" in line]  # fmt: skip
    assert waits == [
        "#SBATCH --dependency=afterany:1:2:3:4",
        "#SBATCH --dependency=afterok:1",
        "#SBATCH --dependency=afterok:1,afterany:2",
        "#SBATCH --dependency=afterok:2:3",
    ]
    assert dependencies(JOBS[3], {"teacher.0": "8"}) == "afterok:8"


def test_what_waits_for_a_job_already_under_way_is_told_its_id(submission: Submission) -> None:
    command("sbatch", "print(n)")
    send(JOBS[3:], request_of(submission), 100, {"teacher.0": "77", "teacher.1": "78"})
    text = (submission.directory / "scripts/teacher.commit.sh").read_text()
    assert "#SBATCH --dependency=afterok:77:78\n" in text
    assert "afterany:77:78:1\n" in (submission.directory / "scripts/control.sh").read_text()


def test_sbatch_may_be_refused_for_a_moment(submission: Submission) -> None:
    command("sbatch", "sys.exit('sbatch: error: Unable to contact slurm controller') if n == 1 else print(40 + n)")
    command("squeue", "pass")
    assert [job.job_id for job in send(JOBS[:1], request_of(submission, submit_from_nodes=False), 9)] == ["42"]


def test_a_lost_answer_sends_nothing_twice(submission: Submission) -> None:
    command("sbatch", "sys.exit('sbatch: error: Socket timed out on send/recv operation')")
    command("squeue", f"print('66 PD btrm-{submission.name}-pairs')")
    assert [job.job_id for job in send(JOBS[:1], request_of(submission, submit_from_nodes=False), 9)] == ["66"]
    assert len(calls("sbatch")) == 1


def test_a_refusal_ends_it_with_slurm_s_own_words(submission: Submission) -> None:
    command("sbatch", "print(n) if n < 3 else sys.exit('sbatch: error: Invalid account')")
    with pytest.raises(StageError, match=r"sbatch refused \S+teacher.1.sh: sbatch: error: Invalid account"):
        send(JOBS, request_of(submission), 100)
    assert [job.key for job in submission.sent()] == ["pairs", "teacher.0"]  # what was taken is on record


def test_without_sbatch_there_is_no_cluster(submission: Submission) -> None:
    with pytest.raises(ConfigError, match="sbatch is not on PATH"):
        send(JOBS, request_of(submission), 100)


def test_a_window_needs_a_controller_and_room_for_it() -> None:
    assert [job.count for job in fitting(JOBS, SITE, 100)] == [1, 4, 3, 1]
    assert [job.count for job in fitting(JOBS, SITE, 4)] == [1, 2]
    with pytest.raises(NoRoomError, match="room for 1 of your jobs and the plan has 9"):
        fitting(JOBS, SITE, 1)
    alone = SITE.model_copy(update={"submit_from_nodes": False})
    assert sum(job.count for job in fitting(JOBS, alone, 9)) == 9
    with pytest.raises(NoRoomError, match="submit_from_nodes"):
        fitting(JOBS, alone, 8)
