"""Logs of older runs, and our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from summary_rows import eval_row, judged, write_judged, write_run

from btrm.cli import main
from btrm.metrics.details import details
from btrm.metrics.eval_log import log_texts
from btrm.metrics.evaluate import EvaluateConfig
from btrm.metrics.intervals import intervals
from btrm.metrics.judged import read_cells
from btrm.metrics.measured import Measured
from btrm.metrics.scalars import scalars
from btrm.report.aggregate import read_runs
from btrm.report.old_log_names import log_name
from btrm.report.old_logs import OldLogs, read_logs

PUBLISHED = """\
2025-11-03 12:00:01,123 INFO: loading checkpoint-1200
[1000/2000] acc=0.701 tie_rate=0.05
===== Results =====
Number of pairs: 2,000
n_samples = 2
Accuracy: 71.25%
Strict accuracy: 0.6900
Ties: 90
BT loss (T=20): 0.5921
Valid rate: 99.5%
margin p10: -12.5
Median margin: 8
"""


def read(tmp_path: Path, text: str, name: str = "eval_checkpoint-1200_seed3.log") -> OldLogs:
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    return read_logs([tmp_path / name])


def only(found: OldLogs) -> dict[str, Any]:
    (row,) = found.evals
    return dict(row)


def test_a_log_of_the_published_tool_becomes_a_row(tmp_path: Path) -> None:
    found = read(tmp_path, PUBLISHED)
    row = only(found)
    assert (row["checkpoint"], row["seed"], row["dataset"]) == ("checkpoint-1200", 3, "test")
    assert (row["n_pairs"], row["n_samples"]) == (2000, 2)
    assert row["accuracy"] == pytest.approx(0.7125) and row["strict_accuracy"] == pytest.approx(0.69)
    assert row["tie_rate"] == 0.05 and row["bt_log_loss"] == 0.5921
    assert row["unparsed_rate"] == pytest.approx(0.005)
    assert (row["margin_p10"], row["margin_p50"]) == (-12.5, 8)
    assert found.unread == []


@pytest.mark.parametrize(
    ("line", "accuracy"),
    [
        ("accuracy: 0.7", 0.7),
        ("Pairwise accuracy = 70.0 %", 0.7),
        ("{'accuracy': 0.7, 'bt_loss': 0.6, 'step': 3}", 0.7),
        ('{"acc": 0.7}', 0.7),
        ("INFO eval accuracy: 7e-1 (1400/2000)", 0.7),
        ("accuracy (ties half): 0.7 [0.68, 0.72]", 0.7),
        ("accuracy: 70", 0.7),
        ("accuracy: 1", 1.0),
    ],
)
def test_many_ways_to_tell_an_accuracy(tmp_path: Path, line: str, accuracy: float) -> None:
    assert only(read(tmp_path, line))["accuracy"] == pytest.approx(accuracy)


@pytest.mark.parametrize("key", ["train accuracy", "accuracy on harmless", "step", "accuracy drop", "loading"])
def test_other_names_are_not_taken_for_ours(key: str) -> None:
    assert log_name(key) is None


def test_an_interval_is_kept(tmp_path: Path) -> None:
    row = only(read(tmp_path, "accuracy: 70 % [68 %, 72 %]"))
    assert (row["accuracy_low"], row["accuracy_high"]) == (0.68, 0.72)


def test_what_could_not_be_read_is_told_by_line(tmp_path: Path) -> None:
    found = read(tmp_path, "accuracy: 0.7\nbt_loss: broken\ntie_rate: n/a\nunparsed rate: nan\n")
    assert found.unread == [f"{tmp_path}/eval_checkpoint-1200_seed3.log:2: bt_loss: no number: 'broken'"]
    assert only(found)["unparsed_rate"] is None
    nothing = read(tmp_path, "killed\n", "eval_x_seed0.log")
    assert nothing.evals == [] and nothing.unread == [f"{tmp_path}/eval_x_seed0.log: no accuracy in it"]


def test_a_log_of_several_data_sets_gives_a_row_each(tmp_path: Path) -> None:
    found = read(tmp_path, "prompt: hh_v1\ndataset: valid1\naccuracy: 0.7\ndataset: test\naccuracy: 0.6\nn_pairs: 5\n")
    assert [(r["dataset"], r["accuracy"], r["n_pairs"], r["prompt"]) for r in found.evals] == [
        ("valid1", 0.7, 0, "hh_v1"),
        ("test", 0.6, 5, "hh_v1"),
    ]


def test_our_own_logs_are_read_as_they_are_written(tmp_path: Path) -> None:
    answers = [a for data in ("valid1", "test") for a in judged("sft", 0.7, data, (0,))]
    read_from = write_judged(tmp_path / "judge", answers, ("valid1", "test"))
    config = EvaluateConfig(n_bootstrap=100)
    cells = [Measured(cell, config.measuring()) for cell in read_cells(*read_from)]
    found = list(zip(cells, intervals(cells, 100, 0), strict=True))
    rows = [scalars(cell, of_cell) for cell, of_cell in found]
    texts = log_texts(rows, [details(cell, of_cell) for cell, of_cell in found], margins=True, uncertainty=True)
    (name,) = texts
    told = read(tmp_path, texts[name], name)
    assert told.unread == [] and len(told.evals) == 2
    for row, read_back in zip(rows, told.evals, strict=True):
        for key in ("checkpoint", "dataset", "seed", "prompt", "method", "n_pairs", "n_contexts", "n_samples"):
            assert read_back[key] == row[key]
        assert read_back["n_half_judged"] == row["n_half_judged"] == 0
        numbers = [key for key in row if key in read_back and isinstance(row[key], float)]
        assert len(numbers) > 40
        assert {key: read_back[key] for key in numbers} == pytest.approx({key: row[key] for key in numbers}, abs=6e-5)


def test_folders_with_logs_alone_stand_beside_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        read(tmp_path / "2024", PUBLISHED, f"eval_checkpoint-1200_seed{seed}.log")
    read(tmp_path / "2024", "oom\n", "eval_checkpoint-1400_seed0.log")
    found = read_runs([tmp_path])
    assert [(run.name, len(run.evals)) for run in found.runs] == [("2024", 2)]
    assert main(["summarize", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "2 cells of 1 run;" in printed and "eval_checkpoint-1400_seed0.log: no accuracy in it" in printed


def test_logs_beside_a_run_are_no_part_of_it(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs/a", [eval_row("sft", 0.5)])
    read(run, PUBLISHED)
    assert [(found.name, len(found.evals)) for found in read_runs([tmp_path / "runs"]).runs] == [
        ("a", 1),
        ("a (logs)", 1),
    ]
