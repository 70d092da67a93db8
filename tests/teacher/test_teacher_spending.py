from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from btrm.cli import main
from btrm.config import ConfigError
from btrm.teacher.base import Item, Usage
from btrm.teacher.journal import Entry
from btrm.teacher.spending import Spending, spending

ENTRY = Entry(
    items=(Item("l", "p", 0, "mark"),),
    sample=0,
    layout="pointwise",
    form="tags",
    request_hash="h",
    text="…",
    finish_reason="stop",
    usage=Usage(input=600, output=90, cached=300, cache_written=100),
    usd=0.25,
    latency_s=1.0,
    attempts=1,
    at=0.0,
)


def write(directory: Path, entries: list[Entry], torn: bytes = b"", number: int = 1) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"0000000-0000009.{number:04d}.jsonl"
    path.write_bytes(b"".join(entry.to_line() for entry in entries) + torn)


def test_lines_add_up_over_all_journals_without_a_torn_one(tmp_path: Path) -> None:
    write(tmp_path, [ENTRY, replace(ENTRY, attempts=3, finish_reason="refusal")], torn=ENTRY.to_line()[:40])
    write(tmp_path, [ENTRY], number=2)
    found = spending(tmp_path)
    assert found.to_json() == {
        "calls": 3,
        "cost_usd": 0.75,
        "retries": 2,
        "prompt_tokens": 3000,
        "cached_share": 0.3,
        "completion_tokens": 270,
        "finish_reasons": {"stop": 2, "refusal": 1},
        "latency_p50_s": pytest.approx(1.0, rel=0.01),
        "latency_p95_s": pytest.approx(1.0, rel=0.01),
    }


def test_a_line_counts_as_its_entry_does() -> None:
    one, other = Spending(), Spending()
    for entry in (ENTRY, replace(ENTRY, usd=None, latency_s=0.0)):
        one.add(entry)
        other.add_line(entry.to_line())
    assert one == other and one.cost_usd is None


def test_percentiles_are_within_a_hundredth(tmp_path: Path) -> None:
    drawn = random.Random(0)
    latencies = [round(drawn.lognormvariate(1, 1), 4) for _ in range(5000)]
    write(tmp_path, [replace(ENTRY, latency_s=s) for s in latencies])
    found = spending(tmp_path)
    for share in (0.05, 0.5, 0.95):
        exact = float(np.quantile(latencies, share, method="inverted_cdf"))
        assert found.latency_s(share) == pytest.approx(exact, rel=0.0101)
    assert len(found.latencies) < 600  # bins, not calls
    assert Spending().latency_s(0.5) is None


def test_a_line_that_is_none_is_named(tmp_path: Path) -> None:
    write(tmp_path, [ENTRY], torn=b'{"usage": 3}\n')
    with pytest.raises(ConfigError, match=r"0000000-0000009\.0001\.jsonl:2: not a line of this journal"):
        spending(tmp_path)


def test_the_ledger_tells_money_of_steps_that_are_not_complete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "run/teacher/calls", [ENTRY, ENTRY], torn=b"{")
    write(tmp_path / "run/second/calls", [replace(ENTRY, usd=None)])
    (tmp_path / "run/.jobs").mkdir()
    assert main(["ledger", str(tmp_path / "run")]) == 0
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line}
    assert lines["teacher"][1:7] == ["2", "0", "2,000", "30%", "180", "0.50"]
    assert lines["second"][6] == lines["all"][6] == "?"
    assert main(["ledger", str(tmp_path / "run"), "--csv"]) == 0
    rows = [line.split(",") for line in capsys.readouterr().out.splitlines()]
    found = {row[1]: dict(zip(rows[0], row, strict=True)) for row in rows[1:]}
    assert found["teacher"]["what"] == "api" and found["teacher"]["cost_usd"] == "0.5"
    assert found["second"]["cost_usd"] == "" and found["second"]["gpu_hours"] == ""
