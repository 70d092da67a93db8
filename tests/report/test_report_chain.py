"""Judgements of a rule judge through evaluate and summarize, as real stages."""

from __future__ import annotations

from pathlib import Path

from btrm.data.toy import toy_pairs
from btrm.judges.ask import judgements
from btrm.judges.base import Sampling
from btrm.judges.cells import Cell
from btrm.judges.rule import RULES, RuleJudge
from btrm.metrics.evaluate import EvaluateConfig
from btrm.prompts import get_prompt
from btrm.records import Judgement, write_judgements
from btrm.report.columns import format_table
from btrm.report.summary import SummarizeConfig
from btrm.report.tables import read_summary
from btrm.runs import Resources, RunManifest, StageConfig, write_json
from btrm.stages import execute, prepare

RULE_OF = {"base": "rule_random", "sft": "rule_random", "checkpoint-50": "rule_toy_noisy", "checkpoint-100": "rule_toy"}


def run_stage(name: str, config: StageConfig, root: Path) -> RunManifest:
    prepared = prepare(name, config, Resources(), root)
    request = prepared.directory / "stage.json"
    write_json(request, prepared.request.model_dump(mode="json"))
    return execute(request)


def rule_judgements(n_pairs: int, seeds: tuple[int, ...]) -> list[Judgement]:
    prompt = get_prompt("toy_score100")
    pairs = list(toy_pairs("test", n_pairs))
    found: list[Judgement] = []
    for label, rule in RULE_OF.items():
        for seed in seeds:
            cell = Cell("x", label, "m", None, prompt, Sampling(1, 1, 0, 0), 2, seed)
            found += judgements(cell, RuleJudge(RULES[rule], prompt), pairs)
    return found


def test_judgements_become_a_table_and_a_curve(tmp_path: Path) -> None:
    source = tmp_path / "j.parquet"
    write_judgements(source, rule_judgements(100, (0, 1, 2)))
    run_stage("evaluate", EvaluateConfig.build({"judgements": str(source), "pairs": None}), tmp_path)
    run_stage("summarize", SummarizeConfig.build({"judgements": str(source), "pairs": None}), tmp_path)
    rows = read_summary(tmp_path / "summary.csv")
    assert [row["checkpoint"] for row in rows] == ["base", "sft", "checkpoint-50", "checkpoint-100"]
    assert [row["step"] for row in rows] == ["", "", "50", "100"]
    assert float(rows[-1]["accuracy"]) == 1.0
    assert abs(float(rows[1]["accuracy"]) - 0.5) < 0.1
    assert float(rows[-1]["difference_low"]) > 0.3
    assert rows[1]["difference"] == ""
    assert (tmp_path / "learning_curve.png").stat().st_size > 10_000
    assert format_table(rows) in (tmp_path / "summary.md").read_text()
