from __future__ import annotations

import math
import random
import statistics
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btrm.metrics.pairwise import (
    PairOutcomes,
    SideScores,
    UnparsedAs,
    metrics,
    pair_outcomes,
    side_scores,
    tails,
)

NAN = float("nan")
Answers = tuple[float | None, ...]
Row = tuple[Answers, Answers, int]
tenths = st.integers(0, 1000).map(lambda n: n / 10)
few = st.sampled_from([0.0, 1.2, 3.0, 3.1, 4.9, 100.0])  # ties are many
sides = st.lists(st.one_of(st.none(), tenths, few), min_size=1, max_size=4).map(tuple)
rows_strategy = st.lists(st.tuples(sides, sides, st.integers(0, 1)), min_size=1, max_size=20)


def sides_of(rows: list[Row]) -> SideScores:
    """The rows' answers as a judgements file has them, one row an answer."""
    answers = [(p, s, score) for p, row in enumerate(rows) for s in (0, 1) for score in row[:2][s]]
    pair_R, side_R = (np.array([answer[i] for answer in answers], dtype=np.int64) for i in (0, 1))
    score_R = np.array([NAN if score is None else score for *_, score in answers], dtype=np.float64)
    return side_scores(score_R, pair_R, side_R, len(rows))


def outcomes(rows: list[Row], unparsed: UnparsedAs = "wrong", bt_temp: float = 20.0) -> PairOutcomes:
    return pair_outcomes(sides_of(rows), np.array([row[2] for row in rows], dtype=np.int64), bt_temp, unparsed)


def measure(rows: list[Row], unparsed: UnparsedAs = "wrong", bt_temp: float = 20.0) -> dict[str, float]:
    return metrics(outcomes(rows, unparsed, bt_temp))


def one_each(*rows: tuple[float | None, float | None, int]) -> list[Row]:
    """Pairs with one answer a side."""
    return [((first,), (second,), preferred) for first, second, preferred in rows]


def mean_by_hand(answers: Answers, fill: int, unparsed: UnparsedAs) -> Fraction | None:
    """The exact mean of a side."""
    if all(score is None for score in answers):
        return None
    tenths = [10 * fill if score is None else round(10 * score) for score in answers]
    kept = [n for n, score in zip(tenths, answers, strict=True) if unparsed == "wrong" or score is not None]
    return Fraction(sum(kept), 10 * len(kept))


def by_hand(rows: list[Row], unparsed: UnparsedAs, bt_temp: float) -> dict[str, float]:
    """The same, one row after the other, as one would first write it."""
    credits: list[float] = []
    losses: list[float] = []
    unscored = 0
    for *both, preferred in rows:
        chosen = mean_by_hand(both[preferred], 0, unparsed)
        other = mean_by_hand(both[1 - preferred], 100, unparsed)
        if chosen is None or other is None:
            unscored += 1
            if unparsed != "drop":
                credits.append(0.0 if unparsed == "wrong" else 0.5)
                losses.append(math.log1p(math.exp(100 / bt_temp)) if unparsed == "wrong" else math.log(2))
            continue
        credits.append(1.0 if chosen > other else 0.5 if chosen == other else 0.0)
        losses.append(math.log1p(math.exp(-float(chosen - other) / bt_temp)))
    decided = [(c, x) for c, x in zip(credits, losses, strict=True) if c != 0.5]
    mean = lambda values: statistics.fmean(values) if values else NAN  # noqa: E731
    return {
        "accuracy": mean(credits),
        "strict_accuracy": mean([float(c == 1) for c in credits]),
        "tie_rate": mean([float(c == 0.5) for c in credits]),
        "nontie_accuracy": mean([c for c, _ in decided]),
        "bt_log_loss": mean(losses),
        "nontie_bt_log_loss": mean([x for _, x in decided]),
        "unparsed_pair_rate": unscored / len(rows),
        "coverage": 1 - unscored / len(rows),
    }


@given(rows_strategy, st.sampled_from(["wrong", "tie", "drop"]), st.sampled_from([1.0, 5.0, 20.0]))
def test_equals_the_plain_loop(rows: list[Row], unparsed: UnparsedAs, bt_temp: float) -> None:
    assert measure(rows, unparsed, bt_temp) == pytest.approx(by_hand(rows, unparsed, bt_temp), nan_ok=True)


def test_closed_forms() -> None:
    rows = one_each((90.0, 10.0, 0), (10.0, 90.0, 1), (50.0, 50.0, 0), (80.0, 20.0, 1))
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
    side = data.draw(st.integers(0, 1))
    answers = list(rows[place][:2][side])
    answers[data.draw(st.integers(0, len(answers) - 1))] = None
    first, second, preferred = rows[place]
    row = (tuple(answers), second, preferred) if side == 0 else (first, tuple(answers), preferred)
    before, after = measure(rows), measure([*rows[:place], row, *rows[place + 1 :]])
    assert after["accuracy"] <= before["accuracy"]
    assert after["bt_log_loss"] >= before["bt_log_loss"] - 1e-12


def test_every_second_answer_without_a_score_costs_accuracy() -> None:
    whole: list[Row] = [((60.0, 70.0), (40.0, 50.0), 0), ((20.0, 20.0), (90.0, 90.0), 1)]
    junk: list[Row] = [((60.0, None), (40.0, None), 0), ((None, 20.0), (90.0, None), 1)]
    assert measure(whole)["accuracy"] == 1.0
    assert measure(junk)["accuracy"] == 0.0  # (60 + 0) / 2 against (40 + 100) / 2, (90 + 0) / 2 against (20 + 100) / 2
    assert list(outcomes(junk).margin_P) == [-40.0, -15.0]
    assert measure(junk, "tie")["accuracy"] == measure(junk, "drop")["accuracy"] == 1.0
    assert measure(junk)["unparsed_pair_rate"] == 0.0
    lost = one_each((None, 0.0, 0))
    assert measure(lost)["accuracy"] == 0.0  # no score at all is worse than the scale's low end, which would tie
    assert measure(lost)["bt_log_loss"] == pytest.approx(math.log1p(math.exp(5)))


def test_the_worst_score_is_that_of_the_scale() -> None:
    rows: list[Row] = [((4.0, None), (2.0, 3.0), 0)]
    found = pair_outcomes(sides_of(rows), np.array([0]), 1.0, "wrong", (1.0, 5.0))
    assert (found.margin_P[0], found.credit_P[0]) == (0.0, 0.5)
    none = pair_outcomes(sides_of([((None,), (3.0,), 0)]), np.array([0]), 1.0, "wrong", (1.0, 5.0))
    assert none.loss_P[0] == pytest.approx(math.log1p(math.exp(4)))


def test_means_that_are_equal_on_paper_are_a_tie() -> None:
    assert (3.0 + 3.1) / 2 != (1.2 + 4.9) / 2
    rows: list[Row] = [((3.0, 3.1), (1.2, 4.9), 0), ((2.2,), (2.0, 2.1, 2.5), 1), ((2.2, None), (2.0, 2.1, 2.5), 0)]
    assert list(outcomes(rows, "drop").margin_P) == [0.0, 0.0, 0.0]
    assert measure(rows, "drop")["tie_rate"] == 1.0


def test_a_side_is_the_mean_of_its_parsed_samples() -> None:
    score_R = np.array([80.0, NAN, 60.0, 40.0, NAN, NAN])
    pair_R, side_R = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 0, 1])
    found = side_scores(score_R, pair_R, side_R, 2)
    assert np.array_equal(found.means(), [[80.0, 50.0], [NAN, NAN]], equal_nan=True)
    assert np.array_equal(found.imputed_means(np.full((2, 2), 10.0)), [[45.0, 50.0], [NAN, NAN]], equal_nan=True)


def test_margin_quantiles_part_right_from_wrong() -> None:
    rows = one_each((90.0, 10.0, 0), (10.0, 30.0, 0), (None, 5.0, 0), (50.0, 50.0, 0))
    found = tails(outcomes(rows))
    assert (found["margin_p50"], found["margin_correct_p50"], found["margin_wrong_p50"]) == (0.0, 80.0, -20.0)


def test_dropping_unparsed_pairs_flatters() -> None:
    rows = one_each(*[(90.0, 10.0, 0)] * 7, *[(10.0, 90.0, 0)] * 2, (None, 10.0, 0))
    assert measure(rows, "drop")["accuracy"] > measure(rows, "wrong")["accuracy"] == 0.7
