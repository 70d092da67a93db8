"""A checkpoint asked by two prompts is two judges, in every table and on the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from summary_rows import judged, write_judged
from test_report_chain import summarized

from btrm.report import summary
from btrm.report.page.parts import page_parts
from btrm.report.report_input import ReportInput
from btrm.report.tables import read_summary

SKILL = {("sft", "v1"): 0.5, ("sft", "v3"): 0.6, ("checkpoint-50", "v1"): 0.7, ("checkpoint-50", "v3"): 0.95}


def test_two_prompts_keep_apart_and_the_best_is_one_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [
        replace(answer, prompt=f"hh_score100_{prompt}")
        for (name, prompt), skill in SKILL.items()
        for answer in judged(name, skill, "test", [0, 1])
    ]
    pages: list[ReportInput] = []
    monkeypatch.setattr(summary, "write_report", lambda *told: pages.append(told[2]) or told[0].touch())
    manifest = summarized(tmp_path, write_judged(tmp_path / "made", answers, ("test",)))
    assert str(manifest.results["best"]).startswith("checkpoint-50 (hh_score100_v3): ")
    rows = read_summary(tmp_path / "summary.csv")
    assert [(r["checkpoint"], r["prompt"][-2:], r["baseline"]) for r in rows] == [
        ("sft", "v1", ""),
        ("checkpoint-50", "v1", "sft (hh_score100_v1)"),
        ("sft", "v3", ""),
        ("checkpoint-50", "v3", "sft (hh_score100_v3)"),
    ]
    assert [r["checkpoint"] + r["prompt"][-2:] for r in rows if r["selected"]] == ["checkpoint-50v3"]
    (page,) = pages
    parts = page_parts(page)
    accuracy = f"{float(rows[-1]['accuracy']):.3f}"
    assert (parts["tiles"][0].value, parts["tiles"][0].under.endswith("optimistic: selected on it")) == (accuracy, True)
    titles = [cell.title for cell in parts["cells"]]
    assert titles[0] == "checkpoint-50 (hh_score100_v3) · test (best, optimistic: selected on these data)"
    assert len(set(titles)) == len(titles) == 4
    assert {pair.checkpoint for pair in page.worst} == {"checkpoint-50 (hh_score100_v3)"}
    of_v3 = {a.label_id for a in answers if a.judge == "checkpoint-50" and a.prompt.endswith("v3")}
    for pair in page.worst:
        assert len(pair.answers) == 4  # two seeds, two sides: those of the other prompt are not among them
        assert pair.label_id in of_v3
