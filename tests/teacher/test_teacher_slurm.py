"""The teacher as an array on a real Slurm: shards that are killed and preempted, and a key that nobody takes."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from api_server import Server, serve
from api_world import KEY, MODEL, World
from sent_jobs import progressed

from btrm.cli import main as btrm
from btrm.launch.submission import Submission, submissions
from btrm.onebox.box import OneBox
from btrm.records import read_judgements
from btrm.runs import read_manifest
from btrm.stages import verify_run
from btrm.submit import main

STUDY = f"{Path(__file__).parent.parent / 'launch' / 'slurm_study.py'}:light"
SHARDS, PAIRS, AT_ONCE = 4, 80, 2
SITE = f"""
executor = "slurm"
partition = "low"
python = "{sys.executable}"
warn_s = 5
backoff_s = 1
queue_interval_s = 0.3
patrol_s = 0
"""


@pytest.fixture
def server(need_teacher: None) -> Generator[Server]:
    del need_teacher
    with serve(World(latency_s=0.2)) as running:
        yield running


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_text(KEY)
    return path


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tried.toml").write_text(SITE)
    monkeypatch.setenv("BTRM_SITE", str(tmp_path / "tried.toml"))
    return tmp_path / "run"


def submit(run: Path, server: Server, key: Path, *words: str) -> Submission:
    """Send the teacher's array, its pairs being there already."""
    common = ["--experiment", STUDY, "--run", str(run)]
    assert main(["pairs", *common, "--site", "local"]) == 0
    asked = ["--backend", "openai", "--base-url", f"{server.url}/v1", "--model", MODEL, "--api-key-file", str(key)]
    how = ["--shards", str(SHARDS), "--concurrency", str(AT_ONCE), "--rpm", "6000", "--n-pairs", str(PAIRS)]
    assert main(["teacher", *common, *asked, *how, *words]) == 0
    return submissions(run)[-1]


def drained(box: OneBox, timeout_s: float = 240) -> None:
    box.wait_until("an empty queue", lambda: not box.run("squeue", "--noheader"), timeout_s)


def assert_complete(run: Path) -> None:
    rows = [(row["label_id"], row["side"]) for row in read_judgements(run / "teacher/judgements.parquet").to_pylist()]
    assert len(set(rows)) == len(rows) == 2 * PAIRS and verify_run(run) == []


@pytest.mark.slow
def test_a_killed_and_a_preempted_shard_lose_and_double_nothing(
    slurm: Callable[..., OneBox], server: Server, run: Path, key: Path
) -> None:
    from btrm.onebox.faults import task_kill

    box = slurm(nodes=SHARDS, cpus=1)
    server.world.latency_s = 2.0  # 40 s of work for each shard: none may be done before it is hurt
    sent = submit(run, server, key)
    array = next(job.job_id for job in sent.sent() if job.kind == "array")

    box.wait_until("progress", lambda: progressed(sent, 0) and progressed(sent, 1))
    task_kill(box, f"{array}_0")
    box.run("scancel", "--signal=URG", f"{array}_1")
    box.wait_until("the stop", lambda: sent.read_state("teacher", 1).attempts[0].outcome == "stopped")
    server.world.latency_s = 0.2
    drained(box)
    killed, warned = sent.read_state("teacher", 0).attempts, sent.read_state("teacher", 1).attempts
    assert [(a.outcome, a.cause) for a in killed] == [("lost", "killed"), ("done", "")]
    assert [(a.outcome, a.cause) for a in warned] == [("stopped", "timeout"), ("done", "")]
    assert_complete(run)
    answered = Counter(noted.call for noted in server.world.log if noted.answered)
    assert len(answered) == 2 * PAIRS and answered.total() <= 2 * PAIRS + AT_ONCE  # what was under way at the kill
    manifest = read_manifest(run / "teacher")
    assert manifest is not None and manifest.results["calls"] == 2 * PAIRS


@pytest.mark.slow
def test_a_wrong_key_stops_the_array_with_one_message_until_it_is_mended(
    slurm: Callable[..., OneBox], server: Server, run: Path, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    box = slurm(nodes=SHARDS, cpus=1)
    wrong = "sk-wrong-abcdefghij0123456789"
    key.write_text(wrong)
    sent = submit(run, server, key)
    box.wait_until("the first request", lambda: bool(server.world.log))
    box.wait_until("the word to stop", lambda: sent.stopped() is not None)
    drained(box)
    assert len(server.world.log) <= SHARDS * AT_ONCE  # nobody tries again what is refused for good
    stopped = sent.stopped()
    assert stopped is not None and stopped["cause"] == "teacher_halted"
    capsys.readouterr()
    btrm(["status", str(run)])
    shown = capsys.readouterr().out
    assert shown.count("stopped: teacher_halted: ") == shown.count(" teacher_halted, the last:") == 1, shown
    assert "401" in shown and wrong not in shown
    key.write_text(KEY)
    assert btrm(["retry", str(run)]) == 0
    drained(box)
    assert_complete(run)
    assert sum(noted.answered for noted in server.world.log) == 2 * PAIRS
