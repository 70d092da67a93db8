"""Judgements of a rule judge through evaluate and summarize, as real stages."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
from summary_rows import judged, write_judged

from btrm.config import ConfigError
from btrm.data.toy import toy_pairs
from btrm.judges.ask import judgements
from btrm.judges.base import Sampling
from btrm.judges.cells import Cell
from btrm.judges.rule import RULES, RuleJudge
from btrm.metrics.evaluate import EvaluateConfig
from btrm.prompts import get_prompt
from btrm.publishing import write_json
from btrm.records import Judgement, write_judgements
from btrm.report.aggregate import aggregate_rows, read_runs
from btrm.report.closing import closing
from btrm.report.columns import format_table
from btrm.report.summary import SummarizeConfig
from btrm.report.tables import read_summary
from btrm.runs import Resources, RunManifest, StageConfig, read_manifest, verify
from btrm.stages import execute, prepare

RULE_OF = {"base": "rule_random", "sft": "rule_random", "checkpoint-50": "rule_toy_noisy", "checkpoint-100": "rule_toy"}
SKILL = {"sft": 0.5, "checkpoint-50": 0.8, "checkpoint-100": 0.95}


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
    highest = max(rows, key=lambda row: float(row["accuracy"]))  # the earliest of equal ones
    assert highest["selected"].startswith("optimistic")
    assert [row["checkpoint"] for row in rows if row["selected"]] == [highest["checkpoint"]]
    assert (tmp_path / "learning_curve.png").stat().st_size > 10_000
    assert format_table(rows) in (tmp_path / "summary.md").read_text()


def two_data_sets(tmp_path: Path, lacking: tuple[str, str, int] = ("", "", 0)) -> tuple[Path, Path]:
    """Write a validation and a test set judged by three checkpoints with two seeds, less one cell."""
    cells = [(name, dataset, seed) for name in SKILL for dataset in ("validation", "test") for seed in (0, 1)]
    answers = [
        a
        for name, data, seed in cells
        if (name, data, seed) != lacking
        for a in judged(name, SKILL[name], data, [seed])
    ]
    return write_judged(tmp_path / "made", answers, ("validation", "test"))


def summarized(
    tmp_path: Path, sources: tuple[Path, Path], evaluate: Mapping[str, object] | None = None, **settings: object
) -> RunManifest:
    read = {"judgements": str(sources[0]), "pairs": str(sources[1])}
    run_stage("evaluate", EvaluateConfig.build({**read, "n_bootstrap": 200, **(evaluate or {})}), tmp_path)
    return run_stage("summarize", SummarizeConfig.build({**read, "n_bootstrap": 400, **settings}), tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three checkpoints, two seeds, a validation and a test set."""
    root = tmp_path_factory.mktemp("runs") / "study"
    summarized(root, two_data_sets(root))
    return root


def test_the_best_is_selected_on_validation_and_told_on_test(run: Path) -> None:
    manifest = read_manifest(run / "summarize")
    assert manifest is not None
    rows = {(row["checkpoint"], row["dataset"]): row for row in read_summary(run / "summary.csv")}
    assert rows["checkpoint-100", "test"]["selected"] == "on validation"
    assert rows["checkpoint-100", "validation"]["selected"].startswith("optimistic")
    best = str(manifest.results["best"])
    told = float(rows["checkpoint-100", "test"]["accuracy"])
    assert (
        best.startswith(f"checkpoint-100: {told:.3f} [") and " on test, selected by the highest accuracy of 3" in best
    )
    assert "optimistic" not in best and manifest.results["selected"]["own_test_set"] is False
    for place in ((run / "summary.md").read_text(), closing(run)):
        assert best in place
    assert verify(run / "summarize") == []
    assert (run / "report.html").stat().st_size > 10_000


def test_selected_on_its_own_test_set_it_is_marked_everywhere(tmp_path: Path) -> None:
    manifest = summarized(tmp_path, two_data_sets(tmp_path), select_on="test")
    rows = {(row["checkpoint"], row["dataset"]): row for row in read_summary(tmp_path / "summary.csv")}
    assert "optimistic" in rows["checkpoint-100", "test"]["selected"]
    assert rows["checkpoint-100", "validation"]["selected"] == "on test"
    assert manifest.results["selected"]["dataset"] == "validation"  # another's number is honest
    after = [line for line in closing(tmp_path).splitlines() if line.startswith("  after")]
    assert ["optimistic: selected on these data" in line for line in after] == [True, False]  # of test, of validation
    page = (tmp_path / "report.html").read_text()
    assert "checkpoint-100 · test (best, optimistic: selected on these data)<" in page
    assert ">best (optimistic)<" in page and ">best<" in page  # the curves of test, and of validation
    with (tmp_path / "comparisons.csv").open() as file:
        compared = [row for row in csv.DictReader(file) if "checkpoint-100" in (row["a"], row["b"])]
    assert all(("optimistic" in row["selected"]) == (row["dataset"] == "test") for row in compared)
    with pytest.raises(ConfigError, match=r"select_on 'tset': no such data set; did you mean test\?"):
        summarized(tmp_path / "other", two_data_sets(tmp_path / "other"), select_on="tset")


def test_comparisons_hold_every_pair_and_their_adjustment(run: Path) -> None:
    with (run / "comparisons.csv").open() as file:
        found = list(csv.DictReader(file))
    kinds = {(row["dataset"], row["kind"], row["a"], row["b"]) for row in found}
    for dataset in ("validation", "test"):
        assert (dataset, "baseline", "checkpoint-50", "sft") in kinds
        assert (dataset, "previous", "checkpoint-100", "checkpoint-50") in kinds
        assert (dataset, "best", "checkpoint-100", "sft") in kinds
    assert len(found) == 12
    assert all(row["n_pairs"] == "60" and row["n_clusters"] == "30" and row["seeds_a"] == "2" for row in found)
    for row in found:
        family = sum(r["kind"] == row["kind"] for r in found)
        family += row["kind"] == "best"  # where it was selected, the two others count as compared too
        p_value = float(row["p_bootstrap"])
        assert p_value <= float(row["p_holm"]) <= min(1, family * p_value) + 1e-9
    summary = {(row["checkpoint"], row["dataset"]): row for row in read_summary(run / "summary.csv")}
    text = (run / "summary.md").read_text()
    assert "| test         | checkpoint-100 | sft " in text and "| validation * | checkpoint-100 | sft " in text
    marked = {(row["dataset"], row["selected"]) for row in found if row["kind"] == "best"}
    assert marked == {("validation", "optimistic: selected on these data"), ("test", "on validation")}
    mine = next(r for r in found if (r["dataset"], r["kind"], r["a"]) == ("test", "baseline", "checkpoint-50"))
    assert summary["checkpoint-50", "test"]["p_holm"] == mine["p_holm"]


def test_a_tree_of_runs_tells_what_their_own_summaries_tell(run: Path) -> None:
    own = {(row["checkpoint"], row["dataset"]): row for row in read_summary(run / "summary.csv")}
    told = aggregate_rows(read_runs([run.parent]).runs)
    assert {(row.run, row.checkpoint, row.dataset) for row in told} == {("study", *key) for key in own}
    for row in told:
        mine = own[row.checkpoint, row.dataset]
        assert row.strict is not None and f"{row.strict.low:.6g}" == mine["strict_accuracy_low"]
        assert mine["strict_accuracy_low"] == mine["accuracy_low"]  # no pair is a tie there: one definition for both
        assert f"{row.accuracy.low:.6g}" == mine["accuracy_low"] and row.baseline == (mine["baseline"] or None)
        assert (row.comparison is None) == (mine["difference"] == "")
        if row.comparison is not None:
            assert f"{row.comparison.low:.6g}" == mine["difference_low"] and row.selected == mine["selected"]


def test_a_missing_cell_is_flagged_and_the_others_compared(tmp_path: Path) -> None:
    summarized(tmp_path, two_data_sets(tmp_path, ("checkpoint-50", "test", 1)))
    rows = {(row["checkpoint"], row["dataset"]): row for row in read_summary(tmp_path / "summary.csv")}
    lacking = rows["checkpoint-50", "test"]
    assert (lacking["missing"], lacking["n_seeds"], lacking["accuracy_std"]) == ("seed 1", "1", "")
    assert rows["checkpoint-100", "test"]["missing"] == "" and not math.isnan(float(lacking["difference"]))


def test_the_long_table_is_tidy(run: Path) -> None:
    with (run / "summary_long.csv").open() as file:
        long = list(csv.DictReader(file))
    assert list(long[0]) == ["checkpoint", "dataset", "seed", "metric", "value", "prompt", "method"]
    keys = [(row["checkpoint"], row["dataset"], row["seed"], row["metric"]) for row in long]
    assert len(keys) == len(set(keys))
    accuracies = [
        float(r["value"]) for r in long if (r["checkpoint"], r["dataset"], r["metric"]) == ("sft", "test", "accuracy")
    ]
    summary = {(row["checkpoint"], row["dataset"]): row for row in read_summary(run / "summary.csv")}
    mean, std = summary["sft", "test"]["accuracy"], summary["sft", "test"]["accuracy_std"]
    assert len(accuracies) == 2 and float(mean) == pytest.approx(sum(accuracies) / 2, rel=1e-5)
    assert float(std) == pytest.approx(abs(accuracies[0] - accuracies[1]) / math.sqrt(2), rel=1e-4)


def test_columns_and_order_are_chosen_and_may_change(tmp_path: Path) -> None:
    sources = two_data_sets(tmp_path)
    summarized(tmp_path, sources)
    manifest = summarized(tmp_path, sources, columns=["checkpoint", "strict_accuracy"], sort="-accuracy")
    text = (tmp_path / "summary.md").read_text()
    assert "| checkpoint     | strict_accuracy |" in text and "tie_rate" not in text
    assert read_summary(tmp_path / "summary.csv")[0]["checkpoint"] == "checkpoint-100"
    assert manifest.config["sort"] == "-accuracy"
    with pytest.raises(ConfigError, match="no such column; did you mean accuracy"):
        summarized(tmp_path, sources, columns=["acuracy"])
