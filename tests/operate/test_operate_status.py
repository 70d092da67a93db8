from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest
from run_support import FakeQueue, attempt, complete, queue_line, request, state, submit, units

from btrm.cli import main
from btrm.launch import queue as slurm_queue
from btrm.operate.status import RunStatus, run_status
from btrm.operate.steps import StepStatus
from btrm.operate.table import render
from btrm.publishing import write_json


def step(status: RunStatus, name: str) -> StepStatus:
    return next(found for found in status.steps if found.step == name)


def test_a_run_that_waits(tmp_path: Path, queue: FakeQueue) -> None:
    submit(tmp_path)
    queue.hold(
        queue_line("2", "grpo", reason="Resources"),
        queue_line("3_[0-3]", "judge.0", reason="Priority"),
        queue_line("4", "judge.commit", reason="Dependency"),
        queue_line("5", "evaluate", reason="Dependency"),
        queue_line("6", "control", reason="Dependency"),
    )
    status = run_status(tmp_path)
    assert [found.state for found in status.steps] == ["complete", "queued", "queued", "waiting"]
    assert step(status, "grpo").why == "Resources" and step(status, "judge").queued == 4
    assert status.controller == "pending (Dependency)" and not status.finished
    text = render(status)
    assert "queued (Resources)" in text and "0/4 (4 queued)" in text and "on onebox" in text


def test_a_run_that_runs_has_cells_progress_and_an_eta(tmp_path: Path, queue: FakeQueue) -> None:
    submission, began = submit(tmp_path), time.time() - 100
    units(submission, {"a": 100, "b": 50, "c": 50})  # 50 rows an element
    state(submission, "judge", 0, attempt(job="3_0", outcome="done", done=50, total=50))
    state(submission, "judge", 1, attempt(job="3_1", outcome="done", done=50, total=50))
    state(submission, "judge", 2, attempt(job="3_2", host="n2", done=25, total=50))
    state(submission, "grpo", 0, attempt(job="2", host="n[3-4]", done=60, total=100, at_start=40))
    queue.hold(
        queue_line("2", "grpo", "RUNNING", "None", "n[3-4]"),
        queue_line("3_2", "judge.0", "RUNNING", "None", "n2"),
        queue_line("3_[3%1]", "judge.0", reason="JobArrayTaskLimit"),
    )
    status, lasted = run_status(tmp_path), time.time() - began
    judge, grpo = step(status, "judge"), step(status, "grpo")
    assert (judge.state, judge.done, judge.running, judge.queued) == ("running", 2, 1, 1)
    assert (judge.progress, judge.total, judge.cells_done, judge.cells) == (125, 200, 1, 3)
    assert judge.eta_s is not None and 75 / (25 / 100) <= judge.eta_s <= 75 / (25 / lasted) and judge.nodes == ("n2",)
    assert grpo.eta_s is not None and 40 / (20 / 100) <= grpo.eta_s <= 40 / (20 / lasted)
    text = render(status)
    assert "125/200 pairs, 1/3 cells" in text and "2/4 (1 running, 1 queued)" in text and "60/100" in text
    assert "n[3-4]" in text and "200 s" not in text and f"{grpo.eta_s / 60:.0f} min" in text


def test_an_attempt_that_is_silent_and_unknown_to_the_queue_is_lost(tmp_path: Path, queue: FakeQueue) -> None:
    submission = submit(tmp_path)
    old = time.time() - 90
    state(submission, "grpo", 0, attempt(job="2", seen=old))
    queue.hold(queue_line("2", "grpo", "RUNNING", "None", "n1"))
    grpo = step(run_status(tmp_path), "grpo")
    assert grpo.state == "running" and grpo.silent_s is not None and grpo.silent_s > 80
    queue.hold(queue_line("2", "grpo", reason="BeginTime"))
    assert step(run_status(tmp_path), "grpo").state == "queued"
    queue.hold()
    grpo = step(run_status(tmp_path), "grpo")
    assert (grpo.state, grpo.cause, grpo.failed) == ("failed", "lost", 1) and "btrm retry" in grpo.advice
    state(submission, "grpo", 0, attempt(job="2"))
    queue.hold(queue_line("2", "grpo", reason="BeginTime"))
    assert step(run_status(tmp_path), "grpo").state == "queued"  # killed a moment ago, and put back at once
    queue.hold()
    assert step(run_status(tmp_path), "grpo").state == "running"  # seen just now: the queue's answer may be older


def test_sacct_tells_the_end_of_a_lost_attempt_where_there_is_one(tmp_path: Path, queue: FakeQueue) -> None:
    submission = submit(tmp_path)
    state(submission, "grpo", 0, attempt(job="77", seen=time.time() - 90))
    queue.remember("77|OUT_OF_MEMORY\n")
    grpo = step(run_status(tmp_path), "grpo")
    assert (grpo.state, grpo.cause) == ("failed", "out_of_memory") and "--mem-gb" in grpo.advice


def test_sacct_is_asked_once_for_a_whole_run(tmp_path: Path, queue: FakeQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    submission = submit(tmp_path, elements=300)
    old = time.time() - 90
    for element in range(300):
        state(submission, "judge", element, attempt(job=f"3_{element}", seen=old))
    state(submission, "grpo", 0, attempt(job="2", seen=old))
    queue.remember("2|NODE_FAIL\n" + "".join(f"3_{element}|TIMEOUT\n" for element in range(1, 300)))
    asked: list[tuple[str, ...]] = []
    real = slurm_queue._output

    def output(*words: str) -> str | None:
        asked.append(words)
        return real(*words)

    monkeypatch.setattr(slurm_queue, "_output", output)
    for _ in range(2):
        status = run_status(tmp_path)
        assert step(status, "judge").failed == 300 and step(status, "judge").causes["lost"] == 1
        assert step(status, "grpo").cause == "node_failure"
    assert [words[0] for words in asked] == ["sacct"]
    (queue.folder / "accounts").unlink()
    for file in (tmp_path / "cache").rglob("ended-*.json"):
        file.unlink()
    assert step(run_status(tmp_path), "judge").causes == {"lost": 300}
    assert [words[0] for words in asked] == ["sacct", "sacct", "squeue"]


def test_with_slurmctld_down_the_disk_still_tells(tmp_path: Path, queue: FakeQueue) -> None:
    submission = submit(tmp_path)
    state(submission, "grpo", 0, attempt(job="2", seen=time.time() - 500, done=3, total=9))
    queue.fail()
    status = run_status(tmp_path)
    grpo = step(status, "grpo")
    assert grpo.state == "running" and grpo.progress == 3 and grpo.silent_s is not None
    text = render(status)
    assert "no slurmctld" in text and "not heard of for 8 min" in text and "squeue does not answer" in text


def test_a_failure_tells_its_class_and_what_will_be_done(tmp_path: Path, queue: FakeQueue) -> None:
    submission = submit(tmp_path)
    failed = attempt(job="3_1", outcome="failed", cause="cuda_out_of_memory", reason="CUDA out of\nmemory", ended=1.0)
    state(submission, "judge", 1, failed)
    text = render(run_status(tmp_path))
    assert "cuda_out_of_memory: judge.1 on n1" in text and "half the batch" in text and "CUDA out of memory" in text
    queue.hold(queue_line("3_1", "judge.0", reason="BeginTime"))
    text = render(run_status(tmp_path))
    assert "before: cuda_out_of_memory" in text and "half the batch" not in text


def test_a_stopped_run_says_why(tmp_path: Path, queue: FakeQueue) -> None:
    submission = submit(tmp_path)
    stopped = {"cause": "no_progress", "reason": "sent 3 times", "advice": "read the logs"}
    write_json(submission.stop_file, stopped)
    state(submission, "grpo", 0, attempt(job="2", outcome="failed", cause="error", reason="boom"))
    status = run_status(tmp_path)
    assert status.finished and [found.state for found in status.steps] == ["complete", "failed", "waiting", "waiting"]
    assert "stopped: no_progress: sent 3 times" in render(status)
    write_json(submission.stop_file, stopped | {"cause": "cancelled"})
    state(submission, "grpo", 0, attempt(job="2", seen=time.time() - 3))
    queue.hold()  # a few seconds ago it lived, and the queue has it no more
    assert {found.state for found in run_status(tmp_path).steps} == {"complete", "cancelled"}


def test_jobs_that_vanished_before_they_began_are_lost(tmp_path: Path, queue: FakeQueue) -> None:
    submit(tmp_path)
    queue.hold()
    status = run_status(tmp_path)
    assert step(status, "grpo").state == "lost" and "btrm retry" in step(status, "grpo").why
    assert step(status, "evaluate").state == "waiting"


@pytest.mark.usefixtures("queue")
def test_an_extended_step_is_not_complete(tmp_path: Path) -> None:
    submission = submit(tmp_path)
    plan = orjson.loads(submission.plan_file.read_bytes())
    few, many = ({"dataset": "toy", "n_pairs": {"train": n, "validation": 1, "test": 1}} for n in (3, 4))
    plan["steps"][0]["config"] = many
    write_json(submission.plan_file, plan)
    manifest = tmp_path / "pairs" / "manifest.json"
    write_json(manifest, orjson.loads(manifest.read_bytes()) | {"config": few | {"seed": 0}})
    assert step(run_status(tmp_path), "pairs").state == "lost"
    write_json(manifest, orjson.loads(manifest.read_bytes()) | {"config": many | {"seed": 0}})
    assert step(run_status(tmp_path), "pairs").state == "complete"


def test_a_complete_run_does_not_ask_the_queue(tmp_path: Path, queue: FakeQueue) -> None:
    submission = submit(tmp_path)
    for name in ("grpo", "judge", "evaluate"):
        complete(tmp_path, name)
    state(submission, "grpo", 0, attempt(job="2", outcome="done"), attempt(2, job="2", outcome="done"))
    queue.fail()
    status = run_status(tmp_path)
    assert status.finished and status.queue == "" and step(status, "grpo").attempts == 2


def test_the_command_finds_runs_by_name_and_prints_json(
    tmp_path: Path, queue: FakeQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "runs" / "toy.demo"
    submit(root)
    queue.hold()
    for words in (["status"], ["status", "toy.demo"], ["status", "demo"], ["status", str(root)]):
        assert main(words) == 0
        assert str(root) in capsys.readouterr().out
    assert main(["status", "--json"]) == 0
    assert [found["step"] for found in json.loads(capsys.readouterr().out)["steps"]][1:] == [
        "grpo",
        "judge",
        "evaluate",
    ]
    assert main(["status", "toy.dem"]) == 2
    assert "did you mean toy.demo?" in capsys.readouterr().err


def test_watching_ends_when_nothing_more_will_happen(
    tmp_path: Path, queue: FakeQueue, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    submit(tmp_path)
    queue.hold()

    rests: list[float] = []

    def next_look(rest: float) -> None:
        rests.append(rest)
        for name in ("grpo", "judge", "evaluate"):
            complete(tmp_path, name)

    clock = iter([0.0, 2.0, 50.0])  # a look of two seconds
    # Its own clock alone: subprocess sleeps too where a command takes a moment to end.
    watched = SimpleNamespace(sleep=next_look, monotonic=lambda: next(clock))
    monkeypatch.setattr("btrm.operate.cli.time", watched)
    assert main(["status", str(tmp_path), "--watch"]) == 0
    assert capsys.readouterr().out.count("\x1b[H") == 2
    assert rests == [40.0]


def test_a_run_of_this_machine_has_a_status_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    complete(tmp_path / "r", "pairs")
    write_json(tmp_path / "r" / "sft" / ".steps.json", 7)
    request(tmp_path / "r", "sft")
    assert main(["status", "r"]) == 0
    out = capsys.readouterr().out
    assert "complete" in out and "not complete" in out and "7" in out


@pytest.mark.slow
@pytest.mark.parametrize("outcome", ["done", "running"])
def test_10_000_elements_take_less_than_a_second(tmp_path: Path, queue: FakeQueue, outcome: str) -> None:
    submission = submit(tmp_path, elements=10_000)
    units(submission, {f"cell{number}": 10 for number in range(10_000)})
    folder = submission.directory / "state"
    folder.mkdir()
    one = attempt(job="3_0", outcome=outcome, done=10, total=10).model_dump(mode="json")
    for element in range(10_000):
        values = {"step": "judge", "element": element, "attempts": [one | {"job": f"3_{element}"}]}
        (folder / f"judge.{element}.json").write_bytes(orjson.dumps(values))
    queue.hold(queue_line("3_[9000-9999]", "judge.0"))
    started = time.process_time()
    judge = step(run_status(tmp_path), "judge")
    took, started = time.process_time() - started, time.process_time()
    for path in sorted(folder.glob("*.json")):
        orjson.loads(path.read_bytes())
    assert took < max(1.0, 5 * (time.process_time() - started))  # a second, but for a machine that hardly reads faster
    assert (judge.progress, judge.cells_done) == (100_000, 10_000)
