from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from run_support import attempt, complete, state, submit, units

from btrm.cli import main
from btrm.config import ConfigError
from btrm.launch.submission import Submission
from btrm.operate.logs import Question, find_log, follow
from btrm.publishing import write_json


def write(submission: Submission, job: str, text: str, node: int = 0) -> Path:
    path = submission.logs / f"{job}_{node}_log.out"
    path.write_text(text)
    return path


@pytest.fixture
def run(tmp_path: Path) -> Submission:
    submission = submit(tmp_path)
    units(submission, {"sft_seed0": 100, "sft_seed1": 100})
    state(submission, "grpo", 0, attempt(job="1", outcome="failed"), attempt(2, job="2", outcome="running"))
    for element, outcome in enumerate(("done", "failed", "done", "done")):
        state(submission, "judge", element, attempt(job=f"3_{element}", outcome=outcome, cause="error"))
        write(submission, f"3_{element}", f"judge {element}\n")
    state(submission, "judge.commit", 0, attempt(job="4", outcome="done"))
    write(submission, "1", "old\n")
    write(submission, "2", "line 1\n")
    write(submission, "2", "other node\n", 1)
    write(submission, "4", "commit\n")
    return submission


def read(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["logs", *words]) == 0
    return capsys.readouterr().out


def test_what_runs_comes_first_then_what_failed(run: Submission, tmp_path: Path) -> None:
    log = find_log(Question(tmp_path))
    assert log.path.name == "2_0_log.out" and log.what == "grpo.0, attempt 2, job 2 on n1, running"
    state(run, "grpo", 0, attempt(job="2", outcome="done"))
    assert find_log(Question(tmp_path)).path.name == "3_1_0_log.out"
    assert find_log(Question(tmp_path, "judge")).path.name == "3_1_0_log.out"


@pytest.mark.usefixtures("run")
def test_one_step_one_cell_one_node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(tmp_path)
    assert read(root, "judge", "--cell", "2", capsys=capsys) == "judge 2\n"
    assert read(root, "judge.commit", capsys=capsys) == "commit\n"
    assert read(root, "grpo", "--node", "1", capsys=capsys) == "other node\n"


def test_a_cells_name_finds_the_elements_that_share_it(run: Submission, tmp_path: Path) -> None:
    state(run, "judge", 3, attempt(job="3_3", outcome="running"))
    assert find_log(Question(tmp_path, "judge", "sft_seed1")).path.name == "3_3_0_log.out"
    assert find_log(Question(tmp_path, None, "sft_seed1")).path.name == "3_3_0_log.out"
    assert find_log(Question(tmp_path, "judge", "sft_seed0")).path.name == "3_1_0_log.out"


def test_a_cell_is_found_on_any_data_set(run: Submission, tmp_path: Path) -> None:
    units(run, {"sft_seed0@rb": 100, "sft_seed1@test": 100})
    for cell in ("sft_seed1@test", "sft_seed1"):
        assert find_log(Question(tmp_path, "judge", cell)).path == find_log(Question(tmp_path, "judge", "3")).path
    assert find_log(Question(tmp_path, "judge", "sft_seed0")).path.name == "3_1_0_log.out"


@pytest.mark.usefixtures("run")
def test_a_trainers_own_log_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "grpo" / "logs" / "trainer.log"
    own.parent.mkdir(parents=True)
    own.write_text("")
    assert main(["logs", str(tmp_path), "grpo"]) == 0
    assert f"also {own}" in capsys.readouterr().err


def test_what_is_not_there_is_said(run: Submission, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean grpo"):
        find_log(Question(tmp_path, "grpoo"))
    with pytest.raises(ConfigError, match="nothing of evaluate has begun"):
        find_log(Question(tmp_path, "evaluate"))
    with pytest.raises(ConfigError, match="did you mean sft_seed"):
        find_log(Question(tmp_path, "judge", "sft_seed"))
    with pytest.raises(ConfigError, match=r"2_0_log\.out, 2_1_log\.out"):
        find_log(Question(tmp_path, "grpo", node=2))
    with pytest.raises(ConfigError, match="no submission here"):
        find_log(Question(run.logs))


def test_following_goes_on_through_the_next_attempt_until_the_step_is_complete(run: Submission, tmp_path: Path) -> None:
    question = Question(tmp_path, "grpo")

    def work() -> None:
        with (run.logs / "2_0_log.out").open("a") as file:
            file.write("line 2\n")
        time.sleep(0.1)
        write(run, "9", "line 3\n")
        state(run, "grpo", 0, attempt(job="2", outcome="lost"), attempt(2, job="9"))
        time.sleep(0.7)
        with (run.logs / "9_0_log.out").open("a") as file:
            file.write("line 4\n")
        complete(tmp_path, "grpo")

    first, worker = find_log(question), threading.Thread(target=work)
    worker.start()
    text = "".join(follow(question, first))
    worker.join()
    assert [line for line in text.splitlines() if not line.startswith("==>")] == [f"line {n}" for n in (1, 2, 3, 4)]
    assert text.count("==> ") == 1 and "9_0_log.out" in text


def test_following_ends_where_the_run_has_stopped(run: Submission, tmp_path: Path) -> None:
    write_json(run.stop_file, {"cause": "cancelled", "reason": "", "advice": ""})
    question = Question(tmp_path, "grpo")
    assert "".join(follow(question, find_log(question))) == "line 1\n"
