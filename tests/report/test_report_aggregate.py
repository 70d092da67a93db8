"""`btrm summarize` over a tree of runs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from summary_rows import eval_row, judged, write_judged, write_run

from btrm.cli import main
from btrm.config import ConfigError
from btrm.metrics.evaluate import EvaluateConfig
from btrm.publishing import write_json
from btrm.report.aggregate import aggregate_rows, read_runs
from btrm.report.tables import read_summary
from btrm.runs import Resources
from btrm.stages import execute, prepare

SEEDS = (0, 1, 2)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "cluster"
    for user, gain in (("alice", 0.0), ("bob", 0.1)):
        accuracies = {"sft": 0.5, "checkpoint-50": 0.6 + gain}
        rows = [eval_row(name, a + s / 100, seed=s) for name, a in accuracies.items() for s in SEEDS]
        write_run(root / user / "studies" / "hh", rows)
    return root


def test_runs_of_several_users_become_one_table(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summarize", str(tree), "--out", str(tree / "out")]) == 0
    rows = read_summary(tree / "out/summary.csv")
    assert [(row["run"], row["checkpoint"]) for row in rows] == [
        *(("alice/studies/hh", "sft"), ("alice/studies/hh", "checkpoint-50")),
        *(("bob/studies/hh", "sft"), ("bob/studies/hh", "checkpoint-50")),
    ]
    assert [float(row["accuracy"]) for row in rows] == pytest.approx([0.51, 0.61, 0.51, 0.71])
    assert {row["accuracy_std"] for row in rows} == {"0.01"} and {row["n_seeds"] for row in rows} == {"3"}
    assert float(rows[0]["accuracy_low"]) == pytest.approx(0.48)
    assert rows[1]["selected"].startswith("optimistic") and rows[0]["selected"] == ""
    with (tree / "out/summary_long.csv").open() as file:
        long = list(csv.DictReader(file))
    assert len([r for r in long if r["metric"] == "accuracy"]) == 12 and long[0]["run"] == "alice/studies/hh"
    printed = capsys.readouterr().out
    assert "12 cells of 2 runs" in printed and "| bob/studies/hh" in printed


def test_columns_and_order(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summarize", str(tree), "--columns", "run,checkpoint,accuracy", "--sort", "-accuracy"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [word.strip() for word in lines[0].strip("|").split("|")] == ["run", "checkpoint", "accuracy"]
    assert "bob" in lines[2] and "0.710" in lines[2]
    assert main(["summarize", str(tree), "--columns", "acuracy"]) == 2
    assert main(["summarize", str(tree), "--sort", "-nothing"]) == 2
    assert "no such column; did you mean accuracy" in capsys.readouterr().err


def test_a_broken_run_is_named_and_left_out(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half = write_run(tree / "carol/half", [eval_row("sft", 0.5)])
    (half / "evaluate/manifest.json").unlink()
    cut = write_run(tree / "carol/cut", [eval_row("sft", 0.5)])
    with (cut / "evaluate/eval.jsonl").open("a") as file:
        file.write('{"checkpoint": "base", "accu')
    other = write_run(tree / "carol/other", [{"checkpoint": "x", "seed": 0}])
    empty = write_run(tree / "carol/empty", [])
    assert main(["summarize", str(tree), "--out", str(tree / "out")]) == 0
    printed = capsys.readouterr().out
    assert "12 cells of 2 runs; 4 left out" in printed
    for line in (
        f"{half / 'evaluate'}: no manifest.json: not complete",
        f"{cut / 'evaluate/eval.jsonl'}:2: not JSON",
        f"{other / 'evaluate/eval.jsonl'}:1: no dataset, accuracy, n_pairs",
        f"{empty / 'evaluate/eval.jsonl'}: empty",
    ):
        assert line in printed and line in (tree / "out/summary.md").read_text()


def test_a_run_found_twice_by_links_counts_once(tree: Path) -> None:
    (tree / "a-latest").symlink_to(tree / "bob/studies/hh")
    (tree / "alice/loop").symlink_to(tree)
    linked = tree / "dave/copy/evaluate"
    linked.mkdir(parents=True)
    for name in ("eval.jsonl", "manifest.json"):
        (linked / name).hardlink_to(tree / "bob/studies/hh/evaluate" / name)
    assert [run.name for run in read_runs([tree]).runs] == ["alice/studies/hh", "bob/studies/hh"]
    both = read_runs([tree / "bob", tree, tree / "a-latest"])
    assert [run.name for run in both.runs] == ["alice/studies/hh", "bob/studies/hh"]


def test_one_run_is_called_by_its_folder(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [run.name for run in read_runs([tree / "bob/studies/hh"]).runs] == ["hh"]
    monkeypatch.chdir(tree / "bob/studies/hh")
    assert [run.name for run in read_runs([Path()]).runs] == ["hh"]


def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        read_runs([tmp_path / "nothing"])
    with pytest.raises(ConfigError, match=r"no evaluate/eval\.jsonl of a complete run below"):
        read_runs([tmp_path])


def test_rows_of_older_runs_call_the_data_set_a_split(tmp_path: Path) -> None:
    row = eval_row("sft", 0.5)
    write_run(tmp_path / "old", [{("split" if k == "dataset" else k): v for k, v in row.items() if k != "method"}])
    (found,) = aggregate_rows(read_runs([tmp_path]).runs)
    assert (found.dataset, found.key.method) == ("test", "")


def test_the_best_of_a_run_is_selected_on_its_validation_data(tmp_path: Path) -> None:
    told = {"checkpoint-1": (0.7, 0.6), "checkpoint-2": (0.6, 0.9)}
    rows = [eval_row(c, a, d) for c, two in told.items() for d, a in zip(("validation", "test"), two, strict=True)]
    write_run(tmp_path / "run", rows)
    found = {(r.checkpoint, r.dataset): r.selected for r in aggregate_rows(read_runs([tmp_path]).runs)}
    assert found["checkpoint-1", "test"] == "on validation" and found["checkpoint-2", "test"] == ""
    found = {(r.checkpoint, r.dataset): r.selected for r in aggregate_rows(read_runs([tmp_path]).runs, "test")}
    assert "optimistic" in found["checkpoint-2", "test"]


def whole_run(root: Path, skills: dict[str, float]) -> None:
    answers = [a for name, skill in skills.items() for a in judged(name, skill, "test", (0, 1))]
    judgements, pairs = write_judged(root / "judge", answers, ("test",))
    config = EvaluateConfig.build({"judgements": str(judgements), "pairs": str(pairs), "n_bootstrap": 100})
    prepared = prepare("evaluate", config, Resources(), root)
    write_json(prepared.directory / "stage.json", prepared.request.model_dump(mode="json"))
    execute(prepared.directory / "stage.json")


def test_runs_are_compared_with_one_of_them_pair_by_pair(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole_run(tmp_path / "tree/old", {"sft": 0.5, "checkpoint-9": 0.6})
    whole_run(tmp_path / "tree/new", {"sft": 0.5, "checkpoint-9": 0.95})
    words = ["summarize", str(tmp_path / "tree"), "--out", str(tmp_path / "out"), "--baseline"]
    assert main([*words, "old"]) == 0
    rows = {(row["run"], row["checkpoint"]): row for row in read_summary(tmp_path / "out/summary.csv")}
    new, old = rows["new", "checkpoint-9"], rows["old", "checkpoint-9"]
    assert new["baseline"] == "old:checkpoint-9" and old["baseline"] == old["difference"] == ""
    assert float(new["difference"]) == pytest.approx(float(new["accuracy"]) - float(old["accuracy"]), abs=1e-5)
    assert 0 < float(new["difference_low"]) < float(new["difference"]) < float(new["difference_high"])
    assert float(new["p_value"]) <= float(new["p_holm"]) < 0.05
    same = rows["new", "sft"]  # the same answers to the same pairs
    assert float(same["difference"]) == 0 and float(same["p_value"]) == 1
    assert main([*words, "old:sft"]) == 0
    rows = {(row["run"], row["checkpoint"]): row for row in read_summary(tmp_path / "out/summary.csv")}
    assert rows["new", "checkpoint-9"]["baseline"] == rows["old", "checkpoint-9"]["baseline"] == "old:sft"
    summary = (tmp_path / "out/summary.csv").read_bytes()
    assert main([*words, f"{tmp_path / 'tree/old'}/:sft"]) == 0  # as a shell completes it
    assert (tmp_path / "out/summary.csv").read_bytes() == summary
    assert main([*words, "odl"]) == 2 and "did you mean old" in capsys.readouterr().err
    assert main([*words, "old:sfd"]) == 2 and "did you mean sft" in capsys.readouterr().err


def test_without_judgements_a_difference_has_no_interval(tree: Path) -> None:
    assert main(["summarize", str(tree), "--baseline", "alice/studies/hh", "--out", str(tree / "out")]) == 0
    rows = {(row["run"], row["checkpoint"]): row for row in read_summary(tree / "out/summary.csv")}
    bob = rows["bob/studies/hh", "checkpoint-50"]
    assert float(bob["difference"]) == pytest.approx(0.1) and bob["difference_low"] == bob["p_value"] == ""


def test_json_of_a_row_keeps_what_is_null(tmp_path: Path) -> None:
    write_run(tmp_path / "run", [eval_row("sft", 0.5, ece=None), eval_row("sft", 0.6, seed=1, ece=0.25)])
    assert json.loads((tmp_path / "run/evaluate/eval.jsonl").read_text().splitlines()[0])["ece"] is None
    (row,) = aggregate_rows(read_runs([tmp_path]).runs)
    assert row.mean("ece") == 0.25
