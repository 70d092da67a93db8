"""What is not defined (no pair with a credit, one context) goes through every table, picture and sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from summary_rows import judged, write_judged
from test_report_chain import summarized

from btrm.report.closing import closing
from btrm.report.tables import read_summary


@pytest.mark.parametrize("unparsed", [("checkpoint-50",), ("checkpoint-50", "checkpoint-100"), ("sft",)])
def test_a_judge_without_any_score_is_told_without_numbers(tmp_path: Path, unparsed: tuple[str, ...]) -> None:
    answers = [
        replace(a, score=None, outcome="unparsed", completion="") if name in unparsed else a
        for name in ("sft", "checkpoint-50", "checkpoint-100")
        for a in judged(name, 0.8, "test", [0, 1])
    ]
    manifest = summarized(tmp_path, write_judged(tmp_path / "made", answers, ("test",)), evaluate={"unparsed": "drop"})
    rows = {row["checkpoint"]: row for row in read_summary(tmp_path / "summary.csv")}
    for name in unparsed:
        assert (rows[name]["accuracy"], rows[name]["accuracy_low"], rows[name]["difference"]) == ("", "", "")
    told = closing(tmp_path)
    assert "nan" not in told and "nan" not in (tmp_path / "summary.md").read_text()
    assert ("not defined" in told) == (unparsed != ("checkpoint-50",))  # of the first and of the last it is told
    best = str(manifest.results.get("best", ""))
    assert "nan" not in best and not any(best.startswith(name) for name in unparsed)
    assert (tmp_path / "report.html").stat().st_size > 5_000


def test_one_context_alone_is_told(tmp_path: Path) -> None:
    answers = [a for name, skill in (("sft", 0.5), ("checkpoint-50", 0.9)) for a in judged(name, skill, "test", [0], 2)]
    summarized(tmp_path, write_judged(tmp_path / "made", answers, ("test",)))
    rows = read_summary(tmp_path / "summary.csv")
    assert all(row["accuracy"] for row in rows)
    assert "checkpoint-50" in closing(tmp_path)


def test_no_best_is_told_too(tmp_path: Path) -> None:
    summarized(tmp_path, write_judged(tmp_path / "made", list(judged("sft", 0.8, "test", [0])), ("test",)))
    assert "best: none is named" in closing(tmp_path)
