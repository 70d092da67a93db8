"""Several processes on one device: they share an element's work, and leave it to each other where one dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import judge_stage
import pytest
from judge_stage import RuleEngine, rows, run_stage, stage_run
from test_judges_grid import config

from btrm.data.toy import toy_pairs
from btrm.judges import grid, packed
from btrm.judges.grid import JudgeConfig, share_judge, work_judge
from btrm.records import write_pairs
from btrm.runs import StageError
from btrm.stopping import Stopped, ask_to_stop, forget

SCRIPT = Path(__file__).parent / "packed_worker.py"


@pytest.fixture(autouse=True)
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """Workers answer by a rule; the folder where they say what they were asked."""
    before = dict(grid.ENGINES)
    judge_stage.use_rule_engine()
    monkeypatch.setattr(packed, "WORKER", (str(SCRIPT),))
    seen = tmp_path / "seen"
    seen.mkdir()
    monkeypatch.setenv("BTRM_TEST_SEEN", str(seen))
    yield seen
    grid.ENGINES.update(before)
    forget()


@pytest.fixture
def two(tmp_path: Path) -> JudgeConfig:
    """Two checkpoints, two seeds, 24 pairs, three pairs a part, two workers."""
    write_pairs(tmp_path / "pairs.parquet", toy_pairs("test", 24))
    values = config(tmp_path, tmp_path / "pairs.parquet", n_pairs=24, part_pairs=3, cells_per_gpu=2)
    return JudgeConfig.build(values)


def asked(seen: Path) -> dict[str, int]:
    files = {path.name: path.read_text().splitlines() for path in seen.iterdir()}
    return {name: sum(int(line.split()[1]) for line in lines) for name, lines in files.items()}


@pytest.mark.slow
def test_two_workers_share_an_elements_work(tmp_path: Path, two: JudgeConfig, workers: Path) -> None:
    assert run_stage("judge", two, tmp_path / "run").results["asked_now"] == 96
    assert RuleEngine.asked == []  # not in this process
    found = asked(workers)
    assert sum(found.values()) == 96 * 2 and min(found.values()) > 0 and len(found) == 2
    alone = two.model_copy(update={"cells_per_gpu": 1})
    run_stage("judge", alone, tmp_path / "calm")
    assert rows(tmp_path / "run") == rows(tmp_path / "calm")


@pytest.mark.slow
def test_what_a_dead_worker_leaves_the_other_does(
    tmp_path: Path, two: JudgeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("BTRM_TEST_KILL", "1")
    monkeypatch.setenv("BTRM_TEST_SLEEP", "0.1")  # its second batch comes before the other has taken all
    run = stage_run(tmp_path / "run")
    assert sum(share_judge(two, run, work_judge(two, run))) == 96
    assert "worker 1 ended with -9" in caplog.text and work_judge(two, run) == []


@pytest.mark.slow
def test_what_nobody_is_left_to_do_is_an_error_and_the_same_command_goes_on(
    tmp_path: Path, two: JudgeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BTRM_TEST_KILL", "1")
    monkeypatch.setenv("BTRM_TEST_DIES_LATE", "4")  # the other has done all else and ended by then
    with pytest.raises(StageError, match=r"1 of 2 workers of this element have failed, 6 rows are missing"):
        run_stage("judge", two, tmp_path / "run")
    assert not (tmp_path / "run/judge/manifest.json").exists()
    monkeypatch.delenv("BTRM_TEST_KILL")
    assert run_stage("judge", two, tmp_path / "run").results["asked_now"] == 6


@pytest.mark.slow
def test_workers_that_all_fail_are_an_error(tmp_path: Path, two: JudgeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTRM_TEST_SEEN", str(tmp_path / "nowhere"))
    run = stage_run(tmp_path / "run")
    with pytest.raises(StageError, match=r"(?s)FileNotFoundError.*2 of 2 workers of this element have failed, 96 rows"):
        list(share_judge(two, run, work_judge(two, run)))


@pytest.mark.slow
def test_a_stop_reaches_the_workers(tmp_path: Path, two: JudgeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTRM_TEST_SLEEP", "0.4")
    run, done = stage_run(tmp_path / "run"), 0
    units = work_judge(two, run)
    with pytest.raises(Stopped, match="time is up"):
        for pairs in share_judge(two, run, units):
            done += pairs
            ask_to_stop("time is up")
    assert 0 < done < 96
    assert sum(unit.rows for unit in work_judge(two, run)) == 96 - done


@pytest.mark.slow
def test_a_stop_commits_nothing_and_the_same_command_goes_on(
    tmp_path: Path, two: JudgeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BTRM_TEST_SLEEP", "0.4")
    ask_to_stop("terminated")
    with pytest.raises(Stopped, match="terminated"):
        run_stage("judge", two, tmp_path / "run")
    assert not (tmp_path / "run/judge/manifest.json").exists()
    forget()
    monkeypatch.delenv("BTRM_TEST_SLEEP")
    run_stage("judge", two, tmp_path / "run")
    assert len(rows(tmp_path / "run")) == 96 * 2 * 2


@pytest.mark.slow
def test_workers_die_with_their_element(tmp_path: Path, two: JudgeConfig, workers: Path) -> None:
    (tmp_path / "config.json").write_text(two.model_dump_json())
    code = (
        "import json, sys; from pathlib import Path; from btrm.judges import packed; import judge_stage; "
        "from btrm.judges.grid import JudgeConfig, share_judge, work_judge; packed.WORKER = (sys.argv[2],); "
        "config = JudgeConfig.build(json.loads(Path(sys.argv[1]).read_text())); "
        "run = judge_stage.stage_run(Path('run').resolve()); list(share_judge(config, run, work_judge(config, run)))"
    )
    env = {**os.environ, "BTRM_TEST_SLEEP": "60", "PYTHONPATH": str(SCRIPT.parent)}
    words = [sys.executable, "-c", code, str(tmp_path / "config.json"), str(SCRIPT)]
    element = subprocess.Popen(words, env=env, cwd=tmp_path)
    deadline = time.monotonic() + 120
    while len(told := [words for path in workers.iterdir() if (words := path.read_text().split())]) < 2:
        assert element.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    pids = [int(words[0]) for words in told]
    element.send_signal(signal.SIGKILL)
    element.wait()
    deadline = time.monotonic() + 60
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_two_real_models_on_one_cpu(
    tmp_path: Path, pairs_file: Path, tiny_model: Path, adapters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "WORKER", ("-m", "btrm.judges.worker"))
    checkpoints = {"base": str(tiny_model), "late": str(adapters / "checkpoint-10")}
    values = {"pairs": str(pairs_file), "base": str(tiny_model), "checkpoints": checkpoints, "seeds": [0]}
    sizes = {"max_new_tokens": 4, "max_length": 512, "part_pairs": 3, "cells_per_gpu": 2, "dtype": "float32"}
    done = run_stage("judge", JudgeConfig.build({**values, **sizes}), tmp_path / "run")
    assert done.results["asked_now"] == 24
    keys = {(r["judge"], r["label_id"], r["side"], r["sample"]) for r in rows(tmp_path / "run")}
    assert len(keys) == len(rows(tmp_path / "run")) == 2 * 12 * 2 * 2


def test_how_many_share_a_device_changes_no_identity(two: JudgeConfig) -> None:
    alone = JudgeConfig.build({**json.loads(two.model_dump_json()), "cells_per_gpu": 1})
    assert alone.identity() == two.identity()
