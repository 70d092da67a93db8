from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from btrm.launch.queue import ended, forget, look, parse
from btrm.onebox.box import OneBox

LINES = """\
7|RUNNING|n1|59:30|1700000000|btrm-s-sft|None
8_[2-4,9,20-30:5%2]|PENDING||1:00:00|N/A|btrm-s-judge.0|Priority
8_0|RUNNING|n2|30:00|1700000000|btrm-s-judge.0|None
9|PENDING||1:00:00|1700000100|btrm-s-evaluate|Nodes required for job are DOWN, DRAINED or reserved|more
10|RUNNING|n3|1:00|1700000000|somebody-else's|None
torn
"""


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A squeue that counts how often it is asked, and prints the file `answer`, or fails where there is none."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "squeue"
    script.write_text(
        "#!/bin/sh\n"
        f"echo x >> {folder}/calls\n"
        f"sleep 0.1; cat {folder}/answer 2>/dev/null || {{ echo 'slurm_load_jobs error' >&2; exit 1; }}\n"
    )
    script.chmod(0o755)
    (folder / "answer").write_text(LINES)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def calls(squeue: Path) -> int:
    return len((squeue / "calls").read_text().splitlines())


def test_pending_elements_are_one_line() -> None:
    jobs = parse(LINES)
    assert sorted(jobs) == ["7", "8", "9"]
    assert sorted(jobs["8"], key=str) == [0, 2, 20, 25, 3, 30, 4, 9]
    assert jobs["8"][0].node == "n2" and not jobs["8"][0].waiting
    assert jobs["8"][25].reason == "Priority" and jobs["8"][25].waiting
    assert jobs["9"][None].reason.endswith("reserved|more") and jobs["9"][None].start == 1700000100
    assert jobs["7"][None].start == 1700000000 and jobs["7"][None].time_left == "59:30"


def test_100_000_pending_elements_are_read_at_once() -> None:
    line, took = "3_[0-99999%50]|PENDING||1:00|N/A|btrm-s-judge.0|Resources", list[float]()
    for _ in range(3):  # the quickest counts: others' work on this machine is none of ours
        started = time.process_time()
        assert len(parse(line)["3"]) == 100_000
        took.append(time.process_time() - started)
    assert min(took) < 0.5


@pytest.mark.usefixtures("squeue")
def test_a_view_finds_jobs_and_elements() -> None:
    view = look()
    assert view.known and view.age_s < 300
    assert view.find("8", 3) == view.find("8_3") is not None
    assert view.find("8_5") is None and view.find("8") is None and view.jobs["8"]
    assert "10" not in view.jobs and "11" not in view.jobs


def test_all_watchers_together_ask_once_in_an_interval(squeue: Path) -> None:
    code = "from btrm.launch.queue import look\nassert '7' in look(60).jobs"
    watchers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(5)]
    assert [watcher.wait() for watcher in watchers] == [0] * 5
    assert calls(squeue) == 1
    look(60)
    assert calls(squeue) == 1
    forget()
    look(60)
    assert calls(squeue) == 2
    look(0.0)
    assert calls(squeue) == 3


def test_where_squeue_fails_the_last_answer_stays(squeue: Path) -> None:
    look(0.0)
    (squeue / "answer").unlink()
    view = look(0.0)
    assert not view.known and view.problem == "slurm_load_jobs error" and "7" in view.jobs
    assert 0 < view.age_s < 300
    look(60)
    assert calls(squeue) == 2  # nor is a squeue that fails asked more often
    (squeue / "answer").write_text("")
    assert look(0.0).known and "7" not in look(60).jobs


def test_without_a_cluster_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    view = look()
    assert not view.known and not view.asked and not view.jobs and "squeue" in view.problem
    assert ended(["7"]) == {}


def test_the_cache_is_the_users_own_and_a_torn_one_is_no_error(squeue: Path, tmp_path: Path) -> None:
    look()
    files = list((tmp_path / "cache" / "btrm").iterdir())
    assert files and all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    next(file for file in files if file.suffix == ".json").write_text('{"tried": 17')
    assert "7" in look().jobs and calls(squeue) == 2


def test_without_a_place_for_the_answer_each_look_asks(
    squeue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert "7" in look().jobs and "7" in look().jobs
    forget()
    assert calls(squeue) == 2


def test_clusters_do_not_share_an_answer(squeue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look()
    monkeypatch.setenv("SLURM_CONF", "/another/slurm.conf")
    look()
    assert calls(squeue) == 2


@pytest.mark.slow
def test_a_real_queue(slurm: Callable[..., OneBox], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SQUEUE_FORMAT", "%i")  # a user's own habits do not count
    box = slurm(nodes=1, cpus=2)
    words = ("sbatch", "--parsable", "-c2", "-t5", "--output=/dev/null", "--wrap=sleep 600")
    array = box.run(*words, "--job-name=btrm-s-judge.0", "--array=0-998%3")
    after = box.run(*words, "--job-name=btrm-s-commit", f"--dependency=afterok:{array}")
    box.run(*words, "--job-name=other")
    box.wait_until("an element runs", lambda: (e := look(0.0).find(array, 0)) is not None and e.state == "RUNNING")
    view = look(0.0)
    first, pending = view.find(f"{array}_0"), view.find(array, 998)
    assert first is not None and first.node == "n1" and first.start is not None and abs(first.start - time.time()) < 600
    assert pending is not None and pending.waiting and len(view.jobs[array]) == 999
    waits = view.find(after)
    assert waits is not None and waits.reason == "Dependency" and len(view.jobs) == 2
    box.run("scancel", array)
    box.wait_until("the array is gone", lambda: array not in look(0.0).jobs)
    assert ended([f"{array}_0"]) == {f"{array}_0": "CANCELLED"}
    box.kill_controller()
    monkeypatch.setattr("btrm.launch.queue.TIMEOUT_S", 1.0)
    view = look(0.0)
    assert not view.known and view.problem


@pytest.mark.slow
def test_accounts_tell_how_jobs_ended_where_the_queue_does_not_answer(slurm: Callable[..., OneBox]) -> None:
    box = slurm(nodes=1, accounting=True)
    wrap = 'test "$SLURM_ARRAY_TASK_ID" = 0'
    array = box.run("sbatch", "--parsable", "--array=0-1", "--output=/dev/null", f"--wrap={wrap}")
    account = ("sacct", "-n", "-X", "-j", array, "-o", "State")
    box.wait_until("both are on account", lambda: sorted(box.run(*account).split()) == ["COMPLETED", "FAILED"])
    box.kill_controller()
    assert ended([f"{array}_0", f"{array}_1"]) == {f"{array}_0": "COMPLETED", f"{array}_1": "FAILED"}
