from __future__ import annotations

import math
import random
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btrm.metrics.pairwise import UnparsedAs, margin_quantiles, metrics, pair_outcomes, side_scores

NAN = float("nan")
Side = float | None
Row = tuple[Side, Side, int]
sides = st.one_of(st.none(), st.integers(0, 100).map(float))
rows_strategy = st.lists(st.tuples(sides, sides, st.integers(0, 1)), min_size=1, max_size=30)


def measure(rows: list[Row], unparsed: UnparsedAs = "wrong", bt_temp: float = 20.0) -> dict[str, float]:
    score_P2 = np.array([[NAN if s is None else s for s in row[:2]] for row in rows], dtype=np.float64)
    preferred_P = np.array([row[2] for row in rows], dtype=np.int64)
    return metrics(pair_outcomes(score_P2, preferred_P, bt_temp, unparsed))


def by_hand(rows: list[Row], unparsed: UnparsedAs, bt_temp: float) -> dict[str, float]:
    """The same, one row after the other, as one would first write it."""
    credits: list[float] = []
    losses: list[float] = []
    unscored = 0
    for first, second, preferred in rows:
        chosen, other = (first, second) if preferred == 0 else (second, first)
        if chosen is None or other is None:
            unscored += 1
            if unparsed != "drop":
                credits.append(0.0 if unparsed == "wrong" else 0.5)
                losses.append(math.log1p(math.exp(100 / bt_temp)) if unparsed == "wrong" else math.log(2))
            continue
        credits.append(1.0 if chosen > other else 0.5 if chosen == other else 0.0)
        losses.append(math.log1p(math.exp(-(chosen - other) / bt_temp)))
    decided = [(c, x) for c, x in zip(credits, losses, strict=True) if c != 0.5]
    mean = lambda values: statistics.fmean(values) if values else NAN  # noqa: E731
    return {
        "accuracy": mean(credits),
        "tie_rate": mean([float(c == 0.5) for c in credits]),
        "nontie_accuracy": mean([c for c, _ in decided]),
        "bt_log_loss": mean(losses),
        "nontie_bt_log_loss": mean([x for _, x in decided]),
        "unparsed_pair_rate": unscored / len(rows),
    }


@given(rows_strategy, st.sampled_from(["wrong", "tie", "drop"]), st.sampled_from([1.0, 5.0, 20.0]))
def test_equals_the_plain_loop(rows: list[Row], unparsed: UnparsedAs, bt_temp: float) -> None:
    assert measure(rows, unparsed, bt_temp) == pytest.approx(by_hand(rows, unparsed, bt_temp), nan_ok=True)


def test_closed_forms() -> None:
    rows: list[Row] = [(90.0, 10.0, 0), (10.0, 90.0, 1), (50.0, 50.0, 0), (80.0, 20.0, 1)]
    found = measure(rows)
    assert found["accuracy"] == (1 + 1 + 0.5 + 0) / 4
    assert found["nontie_accuracy"] == pytest.approx(2 / 3)
    losses = [math.log1p(math.exp(-4))] * 2 + [math.log(2), math.log1p(math.exp(3))]
    assert found["bt_log_loss"] == pytest.approx(sum(losses) / 4)


@given(rows_strategy)
def test_swapping_the_sides_changes_nothing(rows: list[Row]) -> None:
    swapped: list[Row] = [(second, first, 1 - preferred) for first, second, preferred in rows]
    assert measure(rows) == pytest.approx(measure(swapped), nan_ok=True)


@given(rows_strategy, st.randoms(use_true_random=False))
def test_the_order_of_pairs_changes_nothing(rows: list[Row], rng: random.Random) -> None:
    assert measure(rows) == pytest.approx(measure(rng.sample(rows, len(rows))), nan_ok=True)


@given(rows_strategy, st.data())
def test_losing_a_score_never_raises_accuracy_and_never_lowers_the_loss(rows: list[Row], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(rows) - 1))
    lost = [*rows[:place], (None, rows[place][1], rows[place][2]), *rows[place + 1 :]]
    before, after = measure(rows), measure(lost)
    assert after["accuracy"] <= before["accuracy"]
    assert after["bt_log_loss"] >= before["bt_log_loss"] - 1e-12


def test_a_side_is_the_mean_of_its_parsed_samples() -> None:
    score_R = np.array([80.0, NAN, 60.0, 40.0, NAN, NAN])
    pair_R, side_R = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 0, 1])
    assert np.array_equal(side_scores(score_R, pair_R, side_R, 2), [[80.0, 50.0], [NAN, NAN]], equal_nan=True)


def test_margin_quantiles_part_right_from_wrong() -> None:
    score_P2 = np.array([[90.0, 10.0], [10.0, 30.0], [NAN, 5.0], [50.0, 50.0]])
    found = margin_quantiles(pair_outcomes(score_P2, np.array([0, 0, 0, 0]), 20.0))
    assert (found["margin_q50"], found["margin_correct_q50"], found["margin_wrong_q50"]) == (0.0, 80.0, -20.0)


def test_dropping_unparsed_pairs_flatters() -> None:
    rows: list[Row] = [(90.0, 10.0, 0)] * 7 + [(10.0, 90.0, 0)] * 2 + [(None, 10.0, 0)]
    assert measure(rows, "drop")["accuracy"] > measure(rows, "wrong")["accuracy"] == 0.7
