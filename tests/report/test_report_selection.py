from __future__ import annotations

import math
from dataclasses import replace

import pytest
from summary_rows import eval_row, summary_row

from btrm.config import ConfigError
from btrm.report.rows import missing_cells
from btrm.report.selection import choose_data_set


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["test", "validation"], "validation"),
        (["test", "valid1", "valid2"], "valid1"),
        (["Dev", "test"], "Dev"),
        (["test"], "test"),
        (["rewardbench", "rmbench"], None),
        ([], None),
    ],
)
def test_a_data_set_called_validation_selects_else_the_only_one(names: list[str], chosen: str | None) -> None:
    assert choose_data_set(names) == chosen


def test_a_wanted_data_set_must_be_there() -> None:
    assert choose_data_set(["test", "validation"], "test") == "test"
    with pytest.raises(ConfigError, match="did you mean validation"):
        choose_data_set(["test", "validation"], "validatoin")


def test_a_fitted_temperature_is_the_median_with_infinite_ones() -> None:
    told = [eval_row("a", 0.5, seed=s, fitted_temp=t, fitted_log_loss=0.69) for s, t in enumerate((2827.0, None, None))]
    one = replace(summary_row("a", 0.5, "test"), evals=tuple(told))
    assert one.fitted_temp == math.inf and replace(one, evals=tuple(told[:1])).fitted_temp == 2827.0
    assert math.isnan(summary_row("a", 0.5, "test").fitted_temp)


def test_half_judged_cells_are_missing() -> None:
    told = eval_row("a-1", 0.6, n_judgements=790, n_samples=2)
    assert missing_cells([told], [0, 1], 200) == ("seed 1", "seed 0: 790 of 800 answers")
    assert missing_cells([{**told, "n_judgements": 800}], [0], 210) == ("seed 0: 200 of 210 pairs",)
    assert missing_cells([eval_row("a-1", 0.6)], [0], 200) == ()
