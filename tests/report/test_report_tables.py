"""Columns, tables, and the curve's panels, from rows made up."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from summary_rows import eval_row

from btrm.config import ConfigError
from btrm.metrics.bootstrap import Interval
from btrm.report.columns import COLUMNS, as_records, chosen_columns, format_table, sort_records
from btrm.report.curve import draw_curve
from btrm.report.own_summary import undefined
from btrm.report.rows import JudgeKey, SummaryRow, judge_names, key_of, natural_order, step_of
from btrm.report.tables import read_summary, summary_text, write_long, write_records


def row(checkpoint: str, accuracies: Sequence[float] = (0.6, 0.7), **more: object) -> SummaryRow:
    evals = tuple(eval_row(checkpoint, a, seed=s, **more) for s, a in enumerate(accuracies))
    return SummaryRow(key_of(evals[0]), evals[0]["dataset"], evals, Interval(0.55, 0.75))


def test_every_table_has_one_list_of_columns(tmp_path: Path) -> None:
    records = as_records([row("sft"), row("checkpoint-50")])
    write_records(tmp_path / "summary.csv", records)
    header = next(csv.reader((tmp_path / "summary.csv").read_text().splitlines()))
    assert header == [column.name for column in COLUMNS] and len(set(header)) == len(header)
    assert format_table(records) == format_table(read_summary(tmp_path / "summary.csv"))
    assert all(column.meaning for column in COLUMNS)


def test_seeds_give_mean_and_sample_deviation() -> None:
    (record,) = as_records([row("sft", (0.6, 0.7, 0.8), ece=0.1)])
    assert record["accuracy"] == pytest.approx(0.7) and record["accuracy_std"] == pytest.approx(0.1)  # ddof=1
    assert record["ece"] == pytest.approx(0.1) and math.isnan(record["brier"]) and record["n_seeds"] == 3
    assert math.isnan(as_records([row("sft", (0.6,))])[0]["accuracy_std"])


def test_people_see_what_is_told_and_what_varies() -> None:
    names = [column.name for column in chosen_columns(as_records([row("sft"), row("checkpoint-50")]))]
    assert "prompt" not in names and "run" not in names and "difference" not in names and "mde" not in names
    both = as_records([row("sft", prompt="hh_v1"), row("sft", prompt="hh_v2")])
    assert "prompt" in [column.name for column in chosen_columns(both)]
    wanted = chosen_columns(both, ["mde", "checkpoint"])
    assert [column.name for column in wanted] == ["mde", "checkpoint"]
    with pytest.raises(ConfigError, match=r"(?s)'acuracy'.*did you mean accuracy.*'sede'"):
        chosen_columns(both, ["acuracy", "sede"])


def test_small_p_values_are_told_as_bounds() -> None:
    told = row("checkpoint-50")
    compared = SummaryRow(told.key, told.dataset, told.evals, told.accuracy, "sft", undefined(0.2, p_holm=1e-9))
    assert "| <0.0001 |" in format_table(as_records([compared]))


def test_rows_are_ordered_by_a_column_and_gaps_come_last() -> None:
    records = [{"accuracy": 0.5}, {"accuracy": math.nan}, {"accuracy": 0.7}, {"accuracy": None}]
    assert [r["accuracy"] for r in sort_records(records, "-accuracy")][:2] == [0.7, 0.5]
    assert [r["accuracy"] for r in sort_records(records, "accuracy")][:2] == [0.5, 0.7]
    assert sort_records(records, None) == records


def test_the_long_table_survives_names_with_commas(tmp_path: Path) -> None:
    odd = eval_row('runs/a,"b"/checkpoint-5', 0.25, unparsed="tie", ece=None)
    assert write_long(tmp_path / "long.csv", {"my, run": [odd], "other": [odd]}) == 8
    rows = read_summary(tmp_path / "long.csv")
    assert list(rows[0]) == ["run", "checkpoint", "dataset", "seed", "metric", "value", "prompt", "method"]
    assert {r["checkpoint"] for r in rows} == {odd["checkpoint"]} and rows[0]["run"] == "my, run"
    assert {r["metric"]: r["value"] for r in rows}["accuracy"] == "0.25" and "unparsed" not in {
        r["metric"] for r in rows
    }


def test_the_text_explains_its_columns() -> None:
    records = as_records([row("sft")])
    text = summary_text("study", records, ["checkpoint", "ece"], ["a note"])
    assert text.startswith("# study\n\na note\n\n| checkpoint |") and "- `ece`: expected calibration error" in text


def test_judges_are_told_apart_by_what_differs() -> None:
    one, other = JudgeKey("sft", "hh_v1", "sampled"), JudgeKey("sft", "hh_v2", "sampled")
    assert list(judge_names([one]).values()) == ["sft"]
    assert list(judge_names([one, other]).values()) == ["sft (hh_v1)", "sft (hh_v2)"]
    greedy = one._replace(method="greedy")
    assert list(judge_names([one, greedy]).values()) == ["sft (sampled)", "sft (greedy)"]


def test_checkpoints_come_as_training_went() -> None:
    names = ["checkpoint-100", "other", "checkpoint-50", "sft", "base"]
    assert sorted(names, key=natural_order) == ["base", "sft", "other", "checkpoint-50", "checkpoint-100"]
    assert (step_of("run/checkpoint-50"), step_of("step_7"), step_of("sft2")) == (50, 7, None)


def test_the_curve_has_a_panel_a_data_set_and_prompt(tmp_path: Path) -> None:
    draw_curve([row("sft"), row("checkpoint-50")], tmp_path / "one.png")
    several = [
        row("sft"),
        row("sft", dataset="valid1"),
        row("sft", prompt="hh_v2"),
        row("sft", dataset="x", prompt="hh_v2"),
    ]
    draw_curve(several, tmp_path / "four.png")
    sizes = [int.from_bytes((tmp_path / name).read_bytes()[16:20], "big") for name in ("one.png", "four.png")]
    assert sizes[1] == 3 * sizes[0]  # three in a line, the fourth below
