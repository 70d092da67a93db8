from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from btrm.cli import main
from btrm.submit import main as submit


def cpu_of(*words: str) -> float:
    """Return the least that Python takes to run this, in seconds of a processor: others' work does not count."""
    taken: list[float] = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(taken)


def test_help_answers_at_once() -> None:
    library = "import argparse, dataclasses, json, pathlib, subprocess, typing"
    assert cpu_of("-m", "btrm.cli", "--help") < 2 * cpu_of("-c", library)


def test_prompts_lists_and_shows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prompts"]) == 0
    listed = capsys.readouterr().out
    assert "hh_score100_scoreonly" in listed and "teacher:dialog" in listed
    assert main(["prompts", "show", "toy_score100", "--dataset", "toy", "--row", "3"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("Score:") == 2 and "side 1" in shown
    assert main(["prompts", "show", "teacher:general"]) == 0
    shown = capsys.readouterr().out
    for layout in ("pointwise", "batched", "pairwise"):
        assert f"--- {layout}, tags, user" in shown and f"--- {layout}, schema, schema" in shown
    assert "0 to 100" in shown
    assert main(["prompts", "show", "teacher:general", "--scale", "score5", "--layout", "pairwise"]) == 0
    shown = capsys.readouterr().out
    assert "--- pairwise, tags, system" in shown and "pointwise" not in shown and "batched" not in shown
    assert "1.0 to 5.0" in shown and "0 to 100" not in shown
    assert main(["prompts", "show", "teacher:dialogue"]) == 2
    assert "did you mean dialog?" in capsys.readouterr().err
    assert main(["prompts", "show", "toy_score100", "--row", "-1"]) == 2
    assert main(["prompts", "show", "toy_score10"]) == 2
    assert "did you mean toy_score100?" in capsys.readouterr().err


def test_experiments_lists_and_shows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiments"]) == 0
    assert "toy.demo" in capsys.readouterr().out
    assert main(["experiments", "show", "toy.demo"]) == 0
    assert "[grpo]" in capsys.readouterr().out


def test_show_and_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "pairs",
        "--experiment",
        "toy.demo",
        "--run",
        str(tmp_path / "r"),
        "--n-pairs",
        "train=3,validation=3,test=3",
    ]
    assert submit(words) == 0
    assert main(["show", str(tmp_path / "r")]) == 0
    assert "pairs        complete" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "r")]) == 0
    rows = tmp_path / "r/pairs/train.rows.jsonl"
    rows.write_text(rows.read_text().replace("a", "b", 1))
    assert main(["verify", str(tmp_path / "r")]) == 1
    assert "train.rows.jsonl: sha256 differs" in capsys.readouterr().out
    assert main(["show", str(tmp_path / "nothing")]) == 2


def test_rewards_prints_one_array_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    batch = {
        "reward": "bt_pointwise_binary",
        "parser": "score100_last",
        "params": {},
        "completions": ["<s>70</s>", "<s>30</s>"],
        "pair_id": [1, 1],
        "side": [0, 1],
        "preferred_side": [0, 0],
    }
    file = tmp_path / "b.jsonl"
    file.write_text(json.dumps(batch) + "\n")
    assert main(["rewards", "--batches", str(file)]) == 0
    assert json.loads(capsys.readouterr().out) == [1.0, 1.0]
    file.write_text('{"reward": 1}\n')
    assert main(["rewards", "--batches", str(file)]) == 2
    assert f"{file}:1" in capsys.readouterr().err


def test_sites_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sites"]) == 0
    assert "local" in capsys.readouterr().out
