from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from btrm.data.build_dataset import main
from btrm.data.rows import validate_rows

TALK = "\n\nHuman: question {}\n\nAssistant: {}"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Five pairs and a drop."""
    return hh_file(tmp_path / "hh.jsonl", 5, TALK.format(5, "same"))


def hh_file(path: Path, n: int, *both: str, padding: str = "") -> Path:
    with path.open("w") as file:
        for i in range(n):
            sides = {"chosen": TALK.format(i, padding + "good"), "rejected": TALK.format(i, padding + "bad")}
            file.write(json.dumps(sides) + "\n")
        for text in both:
            file.write(json.dumps({"chosen": text, "rejected": text}) + "\n")
    return path


def build(source: Path, *flags: str, split: str = "train") -> int:
    return main(["--dataset", "anthropic_hh", "--split", split, "--data-files", str(source), *flags])


def rows_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_two_rows_a_pair_side_0_then_side_1(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new/rows.jsonl"
    assert build(source, "--out", str(out), "--prompt", "hh_score5_v4") == 0
    rows = rows_of(out)
    assert validate_rows(out) == 5 and len(rows) == 10
    assert list(rows[0]) == ["messages", "pair_id", "label_id", "side", "preferred_side"]
    assert rows_of(out.with_name("rows.jsonl.dropped.jsonl"))[0]["reason"] == "identical_responses"
    counts = json.loads(capsys.readouterr().out)
    assert counts == {"out": str(out), "pairs": 5, "ties": 0, "dropped_identical_responses": 1, "rows": 10}
    assert sorted(p.name for p in out.parent.iterdir()) == ["rows.jsonl", "rows.jsonl.dropped.jsonl"]


def test_flags_may_be_spelt_with_underscores(source: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a_a.jsonl", tmp_path / "b_b.jsonl"
    assert build(source, "--out", str(first), "--add-meta", "--on-error", "skip", "--limit", "3") == 0
    words = ["--dataset=anthropic_hh", f"--data_files={source}", f"--out={second}", "--add_meta", "--on_error=skip"]
    assert main([*words, "--limit=3"]) == 0
    assert first.read_bytes() == second.read_bytes()
    assert rows_of(first)[0]["source"] == "anthropic_hh" and len(rows_of(first)) == 6


def test_wrong_requests_are_named_and_nothing_is_lost(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.jsonl"
    assert build(source, "--out", str(out)) == 0
    before = out.read_bytes()
    lines = source.read_text()
    source.write_text("not json\n")
    assert build(source, "--out", str(out), "--on-error", "skip") == 2
    assert "dataset anthropic_hh, split train: not one pair (dropped_malformed 1)" in capsys.readouterr().err
    source.write_text(lines + "not json\n")
    calls = {
        (): f"error: {source}:7: not JSON",
        ("--prompt", "hh_score100_v9"): "no such prompt; did you mean hh_score100_v",
        ("--limit", "0"): "--limit: expected at least 1, got 0",
        ("--columns", "x"): "--columns 'x': expected NAME=VALUE",
    }
    for flags, message in calls.items():
        assert build(source, "--out", str(out), *flags) == 2
        assert message in capsys.readouterr().err
    assert build(source, "--out", str(out), split="validation") == 2
    assert "no split 'validation'; it has train, test" in capsys.readouterr().err
    assert main(["--dataset", "toy", "--out", str(out)]) == 2
    assert "the toy set has no end" in capsys.readouterr().err
    assert out.read_bytes() == before and not list(tmp_path.glob(".*"))
    assert build(source, "--out", str(out), "--on-error", "skip", "--dropped", str(tmp_path / "side.jsonl")) == 0
    assert [d["reason"] for d in rows_of(tmp_path / "side.jsonl")] == ["identical_responses", "malformed"]


def test_a_full_disk_is_an_error_and_the_old_file_stays(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    assert build(source, "--out", str(out)) == 0
    before = out.read_bytes()
    hh_file(source, 500)
    flags = ["--dataset", "anthropic_hh", "--data-files", str(source), "--out", str(out)]
    small = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # noqa: E731
    command = [sys.executable, "-m", "btrm.data.build_dataset", *flags]
    result = subprocess.run(command, capture_output=True, text=True, preexec_fn=small, check=False)
    assert result.returncode == 2 and result.stderr.splitlines()[-1].startswith("error: [Errno 27] File too large")
    assert out.read_bytes() == before and not list(tmp_path.glob(".*"))


def test_a_users_prompt_is_found_by_path(source: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from btrm.prompts import PromptSpec\nfrom btrm.scores import SCALES\n"
        "short = PromptSpec('short', '', SCALES['score5'], 'score_only', '{context}|{response}', 'be fair')\n"
    )
    out = tmp_path / "rows.jsonl"
    assert build(source, "--out", str(out), "--prompt", f"{tmp_path}/mine.py:short") == 0
    messages = rows_of(out)[0]["messages"]
    assert isinstance(messages, list) and messages[0] == {"role": "system", "content": "be fair"}
    assert messages[1]["content"].startswith("Human: question 0|")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    peaks: list[float] = []
    for n in (5_000, 40_000):
        source = hh_file(tmp_path / f"{n}.jsonl", n, padding="word " * 200)
        code = "import re, sys; from btrm.data.build_dataset import main; assert main(sys.argv[1:]) == 0\n"
        # the peak of this process image alone; ru_maxrss would count what the parent held at the fork
        code += "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
        flags = ["--dataset", "anthropic_hh", "--data-files", str(source), "--out", str(tmp_path / "rows.jsonl")]
        command = [sys.executable, "-c", code, *flags]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(float(result.stdout.splitlines()[-1]) / 1024)
        assert validate_rows(tmp_path / "rows.jsonl") == n
    assert peaks[1] - peaks[0] < 5, peaks
