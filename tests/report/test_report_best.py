"""What is said of the best checkpoint."""

from __future__ import annotations

import math
from dataclasses import replace

from summary_rows import summary_row

from btrm.report.best import Best, as_json, best, sentence

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


def test_the_luckiest_on_test_is_not_taken() -> None:
    rows = [
        summary_row("a-1", 0.7, "validation"),
        summary_row("a-2", 0.6, "validation"),
        summary_row("a-1", 0.61, "test"),
        summary_row("a-2", 0.9, "test"),
    ]
    found = best(rows, [])
    assert found is not None
    assert (found.checkpoint, found.dataset, found.accuracy, found.own_test_set) == ("a-1", "test", 0.61, False)
    own = best(rows[2:], [])
    assert own is not None and own.checkpoint == "a-2" and own.own_test_set


def test_of_equal_ones_the_earliest_is_taken_and_one_alone_is_no_choice() -> None:
    found = best([summary_row("a-1", 0.7, "test"), summary_row("a-2", 0.7, "test")], [])
    assert found is not None and found.checkpoint == "a-1"
    assert best([summary_row("a-1", 0.7, "test")], []) is None
    assert best([summary_row("a-1", 0.7, "x"), summary_row("a-2", 0.7, "y")], []) is None


def test_who_lacks_cells_is_not_selected_and_is_named() -> None:
    rows = [summary_row(f"a-{n}", 0.6 + n / 100, "test") for n in range(4)]
    lacking = [*rows[:3], replace(rows[3], missing=("seed 2",))]
    found = best(lacking, [])
    assert found is not None and (found.checkpoint, found.candidates) == ("a-2", 3)
    assert sentence(found).endswith("Left out, since cells are missing: a-3 (seed 2).")
    elsewhere = best([*rows[:3], replace(rows[3], missing=("data set other",))], [])
    assert elsewhere is not None and elsewhere.checkpoint == "a-3" and "missing" not in sentence(elsewhere)


def test_where_fewer_than_two_are_whole_the_choice_says_what_it_rests_on() -> None:
    rows = [replace(summary_row(f"a-{n}", 0.6 + n / 100, "test"), missing=(f"seed {n}",)) for n in range(2)]
    found = best(rows, [])
    assert found is not None and found.checkpoint == "a-1"
    assert "rests on missing cells, and may change with them: a-1 (seed 1); a-0 (seed 0)" in sentence(found)


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
    for nothing in (0.0, 3e-17):  # a sum of thirds
        assert sentence(replace(BEST, difference=nothing)).endswith(
            "On validation checkpoint-200 is as good; the earlier one is named."
        )
    assert as_json(replace(BEST, pairs_needed=math.inf))["pairs_needed"] is None
