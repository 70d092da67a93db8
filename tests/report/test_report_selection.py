from __future__ import annotations

import math
from dataclasses import replace

import pytest
from summary_rows import eval_row

from btrm.config import ConfigError
from btrm.metrics.bootstrap import Interval
from btrm.report.rows import SummaryRow, key_of, missing_cells
from btrm.report.selection import Best, as_json, best, choose_data_set, sentence

BEST = Best(
    checkpoint="checkpoint-150",
    dataset="test",
    selected_on="validation",
    candidates=5,
    accuracy=0.722,
    low=0.69,
    high=0.75,
    runner_up="checkpoint-200",
    difference=0.012,
    difference_low=-0.004,
    difference_high=0.028,
    p_holm=0.31,
    pairs_needed=1234.0,
    own_test_set=False,
)


def row(checkpoint: str, accuracy: float, dataset: str) -> SummaryRow:
    told = eval_row(checkpoint, accuracy, dataset)
    return SummaryRow(key_of(told), dataset, (told,), Interval(accuracy - 0.03, accuracy + 0.03))


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


def test_the_luckiest_on_test_is_not_taken() -> None:
    rows = [
        row("a-1", 0.7, "validation"),
        row("a-2", 0.6, "validation"),
        row("a-1", 0.61, "test"),
        row("a-2", 0.9, "test"),
    ]
    found = best(rows, [])
    assert found is not None
    assert (found.checkpoint, found.dataset, found.accuracy, found.own_test_set) == ("a-1", "test", 0.61, False)
    own = best(rows[2:], [])
    assert own is not None and own.checkpoint == "a-2" and own.own_test_set


def test_of_equal_ones_the_earliest_is_taken_and_one_alone_is_no_choice() -> None:
    found = best([row("a-1", 0.7, "test"), row("a-2", 0.7, "test")], [])
    assert found is not None and found.checkpoint == "a-1"
    assert best([row("a-1", 0.7, "test")], []) is None
    assert best([row("a-1", 0.7, "x"), row("a-2", 0.7, "y")], []) is None


def test_who_lacks_cells_is_not_selected_and_is_named() -> None:
    rows = [row(f"a-{n}", 0.6 + n / 100, "test") for n in range(4)]
    lacking = [*rows[:3], replace(rows[3], missing=("seed 2",))]
    found = best(lacking, [])
    assert found is not None and (found.checkpoint, found.candidates) == ("a-2", 3)
    assert sentence(found).endswith("Left out, since cells are missing: a-3 (seed 2).")
    elsewhere = best([*rows[:3], replace(rows[3], missing=("data set other",))], [])
    assert elsewhere is not None and elsewhere.checkpoint == "a-3" and "missing" not in sentence(elsewhere)


def test_where_fewer_than_two_are_whole_the_choice_says_what_it_rests_on() -> None:
    rows = [replace(row(f"a-{n}", 0.6 + n / 100, "test"), missing=(f"seed {n}",)) for n in range(2)]
    found = best(rows, [])
    assert found is not None and found.checkpoint == "a-1"
    assert "rests on missing cells, and may change with them: a-1 (seed 1); a-0 (seed 0)" in sentence(found)


def test_a_fitted_temperature_is_the_median_with_infinite_ones() -> None:
    told = [eval_row("a", 0.5, seed=s, fitted_temp=t, fitted_log_loss=0.69) for s, t in enumerate((2827.0, None, None))]
    one = replace(row("a", 0.5, "test"), evals=tuple(told))
    assert one.fitted_temp == math.inf and replace(one, evals=tuple(told[:1])).fitted_temp == 2827.0
    assert math.isnan(row("a", 0.5, "test").fitted_temp)


def test_half_judged_cells_are_missing() -> None:
    told = eval_row("a-1", 0.6, n_judgements=790, n_samples=2)
    assert missing_cells([told], [0, 1], 200) == ("seed 1", "seed 0: 790 of 800 answers")
    assert missing_cells([{**told, "n_judgements": 800}], [0], 210) == ("seed 0: 200 of 210 pairs",)
    assert missing_cells([eval_row("a-1", 0.6)], [0], 200) == ()


def test_the_sentence_tells_where_a_number_is_from() -> None:
    assert sentence(BEST) == (
        "checkpoint-150: 0.722 [0.690, 0.750] on test, selected by the highest accuracy of 5 on validation. "
        "It leads checkpoint-200 by 0.012 [-0.004, +0.028] on validation, which does not tell them apart; "
        "about 1,200 more pairs of new contexts might."
    )
    assert sentence(replace(BEST, pairs_needed=2_924_152.0)).endswith("apart; no practical number of pairs would.")
    own = replace(BEST, selected_on="test", own_test_set=True, p_holm=0.01)
    assert "optimistic, since it was selected on these data" in sentence(own) and "(p 0.01 after Holm)" in sentence(own)
    assert sentence(replace(BEST, difference=math.nan)).endswith("on validation.")
    assert sentence(replace(BEST, difference=0.0)).endswith(
        "On validation checkpoint-200 is as good; the earlier one is named."
    )
    assert as_json(replace(BEST, pairs_needed=math.inf))["pairs_needed"] is None
