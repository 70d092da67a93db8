from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from leaks import files_in, holding

from btrm.records import read_judgements
from btrm.runs import read_manifest, verify
from btrm.submit import main

OFFLINE = """
from btrm.data.pairs import PairsConfig
from btrm.data.sft_data import SftDataConfig
from btrm.teacher.config import TeacherConfig
from btrm.launch.plan import Experiment, Step

def offline():
    pairs = PairsConfig(n_pairs={"train": 400, "validation": 10, "test": 10})
    return Experiment("offline", "the stages before training", (
        Step("pairs", pairs), Step("teacher", TeacherConfig(part_pairs=20)), Step("sft_data", SftDataConfig())))
"""


@pytest.fixture
def offline(tmp_path: Path) -> list[str]:
    file = tmp_path / "study.py"
    file.write_text(OFFLINE)
    return ["--experiment", f"{file}:offline", "--run", str(tmp_path / "run")]


def submit(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "btrm.submit", *words], capture_output=True, text=True, check=False)


def test_a_pipeline_runs_is_skipped_and_is_extended(tmp_path: Path, offline: list[str]) -> None:
    small = ["--set", "pairs.n_pairs=train=30,validation=5,test=5"]
    assert main(["pipeline", *offline, *small]) == 0
    first = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("manifest.json")}
    assert len(first) == 3 and verify(tmp_path / "run") == []
    assert main(["pipeline", *offline, *small]) == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("manifest.json")} == first
    before = read_judgements(tmp_path / "run/teacher/judgements.parquet").to_pylist()
    assert main(["pipeline", *offline, "--set", "pairs.n_pairs=train=40,validation=5,test=5"]) == 0
    after = read_judgements(tmp_path / "run/teacher/judgements.parquet").to_pylist()
    assert len(after) == 80 and [row for row in before if row not in after] == []


def test_other_settings_are_refused_before_anything_runs(
    tmp_path: Path, offline: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pairs", *offline, "--n-pairs", "train=5,validation=5,test=5"]) == 0
    manifest = (tmp_path / "run/pairs/manifest.json").read_bytes()
    assert main(["pairs", *offline, "--n-pairs", "train=5,validation=5,test=5", "--seed", "3"]) == 2
    assert "seed was 0, now 3" in capsys.readouterr().err
    assert (tmp_path / "run/pairs/manifest.json").read_bytes() == manifest


def test_a_dry_run_writes_nothing_and_says_what_it_could_not_check(
    tmp_path: Path, offline: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pipeline", *offline, "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "teacher" in text and "could not be checked" in text and '"part_pairs": 20' in text
    assert not (tmp_path / "run").exists()


def test_a_bare_grpo_has_an_experiment_and_names_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grpo", "--nodes", "1", "--gpus", "8", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "hh.baseline" in text and "Qwen/Qwen2.5-7B-Instruct" in text and "this machine cannot give" in text
    assert main(["grpo", "--nodes", "1", "--gpus", "8"]) == 2
    assert "this machine shows 0 GPUs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["gpro"], "did you mean grpo?"),
        (["pairs", "--n-pair", "train=5"], "--n-pair"),
        (["pairs", "--set", "sed=3"], "did you mean seed?"),
        (["pairs", "--dataset", "anthropic_h"], "did you mean anthropic_hh?"),
        (["pairs", "--prompt", "hh_score100_v9"], "did you mean hh_score100_v"),
        (["grpo", "--reward.name", "bt_pointwise_gradedd"], "did you mean bt_pointwise_graded?"),
        (["grpo", "--set", "BT_SCORE_PARSER=score100"], "score100_"),
        (["pipeline", "--experiment", "toy.demmo"], "did you mean toy.demo?"),
        (["pairs", "--site", "locl"], "did you mean local?"),
    ],
)
def test_what_is_unknown_is_refused_with_the_nearest_name(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert says in capsys.readouterr().err


def test_a_run_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--site", "local", "--run", str(tmp_path / "typo")]) == 2
    assert "typo: no such run, and this reads what a run has made" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("executor", ["inline", "local", "slurm"])
def test_a_step_is_not_written_outside_its_run(
    tmp_path: Path, executor: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--run", str(tmp_path / "run"), "--name", "../../evil", "--site", "slurm", "--executor", executor]
    assert main(["evaluate", *words]) == 2
    assert "step '../../evil'" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("after", ["afterok:5", "5,6", "5?6", "x", "5:", "5;rm"])
def test_after_names_jobs_by_number(tmp_path: Path, after: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--run", str(tmp_path / "run"), "--site", "slurm", "--after", after]
    assert main(["evaluate", *words]) == 2
    assert f"--after {after}: expected the number of a job" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_settings_left_in_the_shell_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BT_DELTA_TEMP", "5")
    assert main(["pairs", "--dry-run"]) == 2
    assert "BT_DELTA_TEMP" in capsys.readouterr().err


def test_another_data_set_brings_its_own_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pairs", "--dataset", "summarize_from_feedback", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "hh.baseline" in text and '"prompt": "score100_v1"' in text


def test_a_users_own_prompt_that_changed_is_another_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    text = (
        "from btrm.prompts import PROMPTS\nfrom dataclasses import replace\nMINE = replace(PROMPTS['toy_score100'])\n"
    )
    file.write_text(text)
    words = ["pairs", "--experiment", "toy.demo", "--run", str(tmp_path / "r"), "--prompt", f"{file}:MINE"]
    words += ["--n-pairs", "train=3,validation=3,test=3"]
    assert main(words) == 0 and main(words) == 0
    file.write_text(text + "# edited\n")
    assert main(words) == 2
    assert f"{file}:MINE has other content" in capsys.readouterr().err


def test_the_run_remembers_its_experiment(tmp_path: Path, offline: list[str]) -> None:
    assert main(["pairs", *offline, "--n-pairs", "train=5,validation=5,test=5"]) == 0
    run = str(tmp_path / "run")
    assert main(["teacher", "--run", run]) == 0
    request = json.loads((tmp_path / "run/teacher/stage.json").read_text())
    assert request["config"]["part_pairs"] == 20


def test_kill_at_any_moment_and_rerun_completes(tmp_path: Path, offline: list[str]) -> None:
    """Kill the whole pipeline after a growing delay, until one gets through; compare with an undisturbed run."""
    command = [sys.executable, "-m", "btrm.submit", "pipeline", *offline]
    for attempt in range(12):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.5 + 0.12 * attempt)
        if child.poll() is not None:
            break
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    assert submit("pipeline", *offline).returncode == 0
    assert verify(tmp_path / "run") == []
    assert main(["pipeline", *offline[:2], "--run", str(tmp_path / "calm")]) == 0
    for name in ("pairs/train.rows.jsonl", "sft_data/sft.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()
    one, two = (read_judgements(tmp_path / r / "teacher/judgements.parquet").to_pylist() for r in ("run", "calm"))
    assert one == two and len(one) == 800


def test_a_full_disk_in_mid_stage_is_an_error_and_a_rerun_completes(tmp_path: Path, offline: list[str]) -> None:
    """The file-size limit stands in for a full disk: the kernel refuses the same write calls."""
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))\n"
    code += "from btrm.submit import main; sys.exit(main(sys.argv[1:]))"
    full = subprocess.run(
        [sys.executable, "-c", code, "pipeline", *offline], capture_output=True, text=True, check=False
    )
    assert full.returncode == 1 and "rerun to go on" in full.stderr and "Traceback" not in full.stderr
    assert read_manifest(tmp_path / "run/pairs") is None
    assert main(["pipeline", *offline]) == 0
    assert verify(tmp_path / "run") == []


def wait_for_the_end(run: Path) -> None:
    """Wait for the last step of a background job."""
    deadline = time.monotonic() + 300
    while read_manifest(run / "sft_data") is None:
        assert time.monotonic() < deadline, "the background job did not finish"
        time.sleep(0.1)


def test_the_local_executor_runs_in_the_background(tmp_path: Path, offline: list[str]) -> None:
    done = submit("pipeline", *offline, "--executor", "local")
    assert done.returncode == 0 and "in the background" in done.stdout
    wait_for_the_end(tmp_path / "run")
    pickles = b"".join(p.read_bytes() for p in (tmp_path / "run/.jobs").rglob("*submitted.pkl"))
    assert b"run_background" in pickles and b"part_pairs" not in pickles, "a job is handed a name and a path"


def test_no_secret_reaches_the_disk(tmp_path: Path, offline: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    canary = "sk-canary-4711"
    monkeypatch.setenv("OPENAI_API_KEY", canary)
    monkeypatch.setenv("WANDB_API_KEY", canary)
    assert submit("pipeline", *offline, "--executor", "local").returncode == 0
    wait_for_the_end(tmp_path / "run")
    assert len(files_in(tmp_path / "run")) > 10
    assert holding(canary, tmp_path / "run") == []


def test_settings_that_cannot_work_are_refused_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--experiment", "toy.demo", "--run", str(tmp_path / "run"), "--set", "grpo.generation_batch_size=100"]
    assert main(["pipeline", *flags]) == 2
    assert "grpo: generation_batch_size: 100 does not give each" in capsys.readouterr().err
    assert not (tmp_path / "run" / "toy_model").exists()


def test_a_teacher_writes_for_the_prompt_of_the_runs_pairs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = str(tmp_path / "run")
    caplog.set_level("INFO")
    small = ["--n-pairs", "train=6,validation=2,test=2"]
    assert main(["pairs", "--run", run, "--dataset", "toy", *small, "--prompt", "hh_score100_v3"]) == 0
    (tmp_path / "run/experiment.json").unlink()  # as where the pairs are another's
    assert main(["teacher", "--run", run]) == 0 and main(["sft_data", "--run", run]) == 0
    for stage in ("teacher", "sft_data"):
        request = json.loads((tmp_path / "run" / stage / "stage.json").read_text())
        assert request["config"]["prompt"] == "hh_score100_v3"
    assert "prompt hh_score100_v3, as this run's pairs" in caplog.text
    assert main(["teacher", "--run", run, "--name", "other", "--prompt", "score100_v1"]) == 0
    assert json.loads((tmp_path / "run/other/stage.json").read_text())["config"]["prompt"] == "score100_v1"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_says_how_to_go_on(tmp_path: Path, number: signal.Signals) -> None:
    run = str(tmp_path / "run")
    assert main(["pairs", "--run", run, "--dataset", "toy", "--n-pairs", "train=2000,validation=2,test=2"]) == 0
    words = ["teacher", "--run", run, "--concurrency", "1", "--n-samples", "8"]
    command = [sys.executable, "-m", "btrm.submit", *words]
    pipe = subprocess.PIPE
    # nohup and a shell's & leave SIGINT ignored to their children, and Python then does not raise KeyboardInterrupt.
    heard = partial(signal.signal, number, signal.SIG_DFL)
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, preexec_fn=heard) as process:
        calls = tmp_path / "run/teacher/calls"
        deadline = time.monotonic() + 120
        while not any(path.stat().st_size for path in calls.glob("*.jsonl")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "the same command goes on" in out and "Traceback" not in err
    journaled = sum(len(path.read_text().splitlines()) for path in calls.glob("*.jsonl"))
    assert 0 < journaled < 32_000
