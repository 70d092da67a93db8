"""Each attempt's trainer writes in a folder of its own; what it publishes and logs becomes the run's, once."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from btrm.checkpoints import is_whole, read_mark, write_mark
from btrm.leases import Fenced, claim, holding
from btrm.publishing import write_json
from btrm.train.outputs import attempt_folder, gather, publish


def checkpoint(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    write_json(path / "trainer_state.json", {"step": step})
    write_mark(path, "base", step)
    return path


def log(attempt: Path, steps: range, note: str = "") -> None:
    with (attempt / "logging.jsonl").open("a") as file, (attempt / "completions.jsonl").open("a") as texts:
        for step in steps:
            file.write(json.dumps({"loss": step, "global_step/max_steps": f"{step}/9", "note": note}) + "\n")
            texts.write(json.dumps({"step": [str(step), str(step)], "completion": ["a", "b"]}) + "\n")


def logged(folder: Path) -> list[int]:
    lines = [json.loads(line) for line in (folder / "logging.jsonl").read_text().splitlines()]
    texts = [json.loads(line) for line in (folder / "completions.jsonl").read_text().splitlines()]
    assert [int(text["step"][0]) for text in texts] == [line["loss"] for line in lines]
    return [line["loss"] for line in lines]


def test_a_published_checkpoint_is_whole_and_the_first_one_stays(tmp_path: Path) -> None:
    first, second = attempt_folder(tmp_path), attempt_folder(tmp_path)
    published = publish(checkpoint(first, 2), tmp_path)
    assert published == tmp_path / "checkpoint-2" and is_whole(published)
    (checkpoint(second, 2) / "more").touch()
    assert publish(second / "checkpoint-2", tmp_path) == published
    assert not (published / "more").exists()


def test_an_attempt_that_was_replaced_publishes_nothing(tmp_path: Path) -> None:
    attempt = attempt_folder(tmp_path)
    whole = checkpoint(attempt, 2)
    log(attempt, range(1, 3))
    with contextlib.suppress(Fenced), holding(claim(tmp_path, "job 1")):
        claim(tmp_path, "job 1")  # Slurm has started the job again
        with pytest.raises(Fenced):
            publish(whole, tmp_path)
        with pytest.raises(Fenced):
            gather(tmp_path)
    assert not (tmp_path / "checkpoint-2").exists() and whole.exists()


def test_logs_go_on_from_the_last_whole_checkpoint(tmp_path: Path) -> None:
    first = attempt_folder(tmp_path)
    publish(checkpoint(first, 4), tmp_path)
    log(first, range(1, 7), "killed in step 7")
    (first / "runs" / "Nov1_n1").mkdir(parents=True)
    with (first / "logging.jsonl").open("a") as file:
        file.write('{"loss": 7, "global_step/max_steps": "7')  # killed as it wrote
    gather(tmp_path)
    assert logged(tmp_path) == [1, 2, 3, 4] and not first.exists()
    second = attempt_folder(tmp_path)
    publish(checkpoint(second, 9), tmp_path)
    log(second, range(5, 10))
    gather(tmp_path)
    gather(tmp_path)
    assert logged(tmp_path) == list(range(1, 10))
    assert (tmp_path / "runs" / "Nov1_n1").is_dir()


def test_a_log_that_broke_off_while_it_was_taken_over_is_made_good(tmp_path: Path) -> None:
    attempt = attempt_folder(tmp_path)
    publish(checkpoint(attempt, 3), tmp_path)
    log(attempt, range(1, 4))
    whole = (attempt / "completions.jsonl").read_bytes()
    (tmp_path / "completions.jsonl").write_bytes(whole[: len(whole) // 2 + 3])
    gather(tmp_path)
    assert logged(tmp_path) == [1, 2, 3]


def test_a_mark_names_what_other_nodes_have_written(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, 1)
    write_mark(folder, "base", 1, {"rng_state_3.pth": 4})
    mark = read_mark(folder)
    assert mark is not None and set(mark["files"]) == {"trainer_state.json", "rng_state_3.pth"}
    assert not is_whole(folder)
    (folder / "rng_state_3.pth").write_bytes(b"1234")
    assert is_whole(folder)
