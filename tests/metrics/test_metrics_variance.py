"""Figures of repeated answers against closed forms, plain loops and hand-made cases."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btrm.config import ConfigError
from btrm.metrics.intervals import intervals
from btrm.metrics.judged import JudgedCell
from btrm.metrics.prompt_choice import Contrast, PromptFigures, choice, contrasts, prompt_row
from btrm.metrics.variance import (
    Answers,
    Shares,
    accuracy_interval,
    expected_correctness,
    mean_tie_rate,
    sample_tie_rate,
    score_histogram,
    unique_scores,
    valid_rate,
    within_std,
    wrong_at_extremes,
    wrong_in_zone,
    wrong_ranges,
)
from btrm.scores import SCALES
from tests.metrics.made_cells import measured

NAN = math.nan
HUNDRED = PromptFigures("p", SCALES["score100"], (20.0, 80.0), (5.0, 10.0, 20.0))


def answers(scores: Any, preferred: Any = None, cluster: Any = None) -> Answers:
    """Answers of pairs [[side 0's scores], [side 1's]]; side 0 is preferred where nothing is said."""
    score_P2K = np.array(scores, dtype=np.float64)
    n_pairs, _, n_samples = score_P2K.shape
    preferred_P = np.zeros(n_pairs, np.int64) if preferred is None else np.array(preferred)
    cluster_P = np.arange(n_pairs) if cluster is None else np.array(cluster)
    return Answers(score_P2K, np.full((n_pairs, 2), n_samples), preferred_P, cluster_P)


HAND = answers(
    [
        [[50, 60, 70], [10, 60, 80]],  # right by 10
        [[10, 10, NAN], [10, 90, 95]],  # wrong; one side is sure and low, the other reaches both ends
        [[50, 55, 60], [70, 70, 70]],  # wrong; both means in the zone
        [[NAN, NAN, NAN], [40, 40, 40]],  # a tie: nothing was scored
        [[30, 40, 50], [40, 40, 40]],  # a tie of means
    ]
)


def test_figures_by_hand() -> None:
    assert valid_rate(HAND) == 26 / 30
    spreads = [10, math.sqrt(1300), 0, math.sqrt(2275), 5, 0, 0, 10, 0]
    assert within_std(HAND) == pytest.approx(np.mean(spreads))
    assert unique_scores(HAND) == pytest.approx(np.mean([3, 3, 1, 3, 3, 1, 1, 3, 1]))
    assert sample_tie_rate(HAND) == pytest.approx((1 + 1 + 0 + 1) / 11)
    assert mean_tie_rate(HAND) == 1 / 4
    assert HAND.outcomes.credit_P.tolist() == [1, 0, 0, 0.5, 0.5]


def test_wrong_pairs_by_hand() -> None:
    assert HAND.wrong_P.tolist() == [False, True, True, False, False]
    assert wrong_in_zone(HAND, 20, 80) == Shares(1.0, 0.5)  # 65 of (10, 65); 55 and 70
    assert wrong_at_extremes(HAND, 20, 80) == Shares(0.5, 0.0)
    assert wrong_ranges(HAND, 10) == Shares(1.0, 0.0)  # (0, 85), (10, 0)
    assert wrong_ranges(HAND, 10.5) == Shares(0.5, 0.0)
    assert wrong_ranges(HAND, 0) == Shares(1.0, 1.0)
    nothing_wrong = answers([[[2.0], [1.0]]])
    assert math.isnan(wrong_ranges(nothing_wrong, 1).any) and math.isnan(wrong_in_zone(nothing_wrong, 0, 9).both)


def test_a_side_without_scores_spreads_by_nothing() -> None:
    half = answers([[[10, 20], [60, 60]]], preferred=[0])
    assert wrong_ranges(half, 10) == Shares(1.0, 0.0)


def loop(of: Answers) -> tuple[float, float]:
    """The definition of expected correctness, answer by answer."""
    half: list[float] = []
    strict: list[float] = []
    for sides, preferred in zip(of.score_P2K, of.preferred_P, strict=True):
        pairs = [(a, b) for a in sides[preferred] for b in sides[1 - preferred]]
        strict.append(sum(a > b for a, b in pairs) / len(pairs))
        half.append(sum(1.0 if a > b else 0.0 if a < b else 0.5 for a, b in pairs) / len(pairs))
    return float(np.mean(half)), float(np.mean(strict))


SCORES = st.lists(st.sampled_from([0.0, 10.0, 20.0, NAN]), min_size=3, max_size=3)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(SCORES, SCORES, st.integers(0, 1)), min_size=1, max_size=6))
def test_expected_correctness_is_its_definition(pairs: list[Any]) -> None:
    of = answers([[a, b] for a, b, _ in pairs], [preferred for *_, preferred in pairs])
    found = expected_correctness(of)
    assert (found.half, found.strict) == pytest.approx(loop(of))
    swapped = answers([[b, a] for a, b, _ in pairs], [1 - preferred for *_, preferred in pairs])
    assert expected_correctness(swapped) == found
    doubled = answers([[a + a, b + b] for a, b, _ in pairs], [preferred for *_, preferred in pairs])
    assert (expected_correctness(doubled).half, unique_scores(doubled)) == pytest.approx(
        (found.half, unique_scores(of)), nan_ok=True
    )


def test_expected_correctness_of_many_answers_goes_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    of = answers(rng.integers(0, 5, (7, 2, 4)), rng.integers(0, 2, 7))
    whole = expected_correctness(of)
    monkeypatch.setattr("btrm.metrics.variance._COMPARED_AT_ONCE", 33)
    assert expected_correctness(of) == whole


def test_normal_answers_meet_their_closed_forms() -> None:
    """Two responses of true difference d, answers with noise s: P(right once) = Phi(d / (s sqrt 2)), of k: more."""
    rng, n_pairs, n_samples, apart, noise = np.random.default_rng(1), 4000, 8, 6.0, 10.0
    truth_P2 = np.stack([np.full(n_pairs, 53.0), np.full(n_pairs, 53.0 - apart)], 1)
    of = answers(truth_P2[..., None] + noise * rng.standard_normal((n_pairs, 2, n_samples)))
    phi = NormalDist().cdf
    once, by_means = phi(apart / noise / math.sqrt(2)), phi(apart / noise / math.sqrt(2 / n_samples))
    row = prompt_row(HUNDRED, of, 500, 0)
    assert row["expected_correct"] == pytest.approx(once, abs=0.01) == row["expected_correct_strict"]
    assert row["accuracy"] == pytest.approx(by_means, abs=0.012)
    assert row["accuracy_low"] < by_means < row["accuracy_high"]
    c4 = math.sqrt(2 / 7) * math.gamma(4) / math.gamma(3.5)  # the sample standard deviation's bias at n = 8
    assert row["within_std"] == pytest.approx(noise * c4, rel=0.01)
    assert (row["tie_rate_samples"], row["unique_scores"], row["valid_rate"]) == (0, n_samples, 1)


def test_the_interval_is_wider_where_pairs_share_a_context() -> None:
    rng = np.random.default_rng(2)
    right_C = rng.integers(0, 2, 60)
    scores = [[[1.0 + right_C[p // 5]], [1.5]] for p in range(300)]
    alone, together = answers(scores), answers(scores, cluster=[p // 5 for p in range(300)])
    (a, b) = (accuracy_interval(of, 2000, 0) for of in (alone, together))
    assert (b.high - b.low) / (a.high - a.low) == pytest.approx(math.sqrt(5), rel=0.15)
    sure = accuracy_interval(answers([[[2.0], [1.0]]] * 100), 200, 0)
    assert sure.high == 1 and sure.low == pytest.approx(0.025 ** (1 / 100))


@pytest.mark.parametrize("clusters", [1, 2, 10, 60])
@pytest.mark.parametrize("scores", [4, 1])
def test_the_interval_is_the_one_that_evaluate_makes(clusters: int, scores: int) -> None:
    score_P2K = np.random.default_rng(clusters).integers(0, scores, (120, 2, 1)).astype(np.float64)
    cluster_P = np.arange(120) % clusters
    (found,) = intervals([measured(score_P2K, cluster_P=cluster_P)], 500, 0)
    mine, evaluated = accuracy_interval(answers(score_P2K, cluster=cluster_P), 500, 0), found["accuracy"]
    assert (mine.low, mine.high) == pytest.approx((evaluated.low, evaluated.high), nan_ok=True)
    assert math.isnan(mine.low) == (clusters == 1)


def test_a_histogram_holds_both_ends() -> None:
    found = score_histogram(answers([[[0.0, 4.9], [100.0, NAN]]]), 0, 100)
    assert (found.edges[0], found.edges[-1], sum(found.counts)) == (0, 100, 3)
    assert found.counts[0] == 2 and found.counts[-1] == 1 and len(found.counts) == 20


def cell(scores: Any, labels: list[str], seed: int = 0) -> JudgedCell:
    of = answers(scores)
    return JudgedCell(
        judge="model",
        dataset="d",
        seed=seed,
        prompt="p",
        method="sampled",
        label_id_P=labels,
        pair_id_P=labels,
        cluster_P=of.cluster_P,
        preferred_P=of.preferred_P,
        score_P2K=of.score_P2K,
        asked_P2=of.asked_P2,
        outcome_R=np.array(["scored"]),
        label_ties=0,
    )


def test_seeds_are_more_answers() -> None:
    one, two = cell([[[1, 2], [3, 4]]], ["a"]), cell([[[5, 6], [7, NAN]]], ["a"], seed=1)
    both = Answers.of([one, two])
    assert both.score_P2K.shape == (1, 2, 4) and both.asked_P2.tolist() == [[4, 4]]
    assert valid_rate(both) == 7 / 8
    with pytest.raises(ConfigError, match="not about the same pairs"):
        Answers.of([one, cell([[[5], [6]]], ["b"], seed=1)])


def test_two_prompts_are_compared_on_the_same_pairs() -> None:
    rng = np.random.default_rng(3)
    hard_P = rng.random(400) < 0.5  # the same pairs are hard for both
    good = answers([[[1.0 if hard else 3.0], [2.0]] for hard in hard_P])
    better = answers([[[1.0 if hard and p % 5 else 3.0], [2.0]] for p, hard in enumerate(hard_P)])
    (found,) = contrasts({"good": good, "better": better}, 2000, 0)
    gained = np.mean([hard and p % 5 == 0 for p, hard in enumerate(hard_P)])
    assert found.result.difference == pytest.approx(-gained)
    assert found.result.low < -gained < found.result.high < 0
    rows = [prompt_row(figures(name), of, 200, 0) for name, of in (("good", good), ("better", better))]
    assert choice(rows, [found]).startswith("Take better: ") and "better than each" in choice(rows, [found])
    same = contrasts({"good": good, "again": good}, 200, 0)
    assert "not told apart from again; no practical number of pairs would tell" in choice([rows[0]], same)
    assert "on 400 pairs; optimistic, the highest of 2 on these pairs." in choice(rows, [found])
    assert "on 400 pairs." in choice(rows[:1], []) and "contexts" not in choice(rows, [found])
    assert "Few answers" not in choice(rows, [found])
    silent = answers(np.full((400, 2, 1), NAN))
    assert "hold a score with mute 0 %" in choice([prompt_row(figures("mute"), silent, 200, 0)], [])
    assert contrasts({"good": good}, 200, 0) == []
    with pytest.raises(ConfigError, match="not about the same pairs"):
        contrasts({"good": good, "other": HAND}, 200, 0)


def test_a_choice_says_what_it_rests_on() -> None:
    right, scores = np.arange(60) % 3 > 0, np.array([[[3.0], [2.0]], [[1.0], [2.0]]])
    few = answers(scores[1 - right], cluster=np.arange(60) % 12)
    assert "They are of 12 contexts only: intervals are rough." in choice([prompt_row(HUNDRED, few, 200, 0)], [])
    one, other = answers(scores[1 - right], cluster=[0] * 60), answers(scores[[0] * 60], cluster=[0] * 60)
    rows = [prompt_row(figures(name), of, 200, 0) for name, of in (("one", one), ("other", other))]
    said = choice(rows, contrasts({"one": one, "other": other}, 200, 0))
    assert "accuracy 1.000 on 60 pairs" in said and "All pairs are of one context: no interval is defined." in said
    assert "from one; how many more pairs would tell is not known." in said


def test_where_holm_alone_holds_a_difference_back_no_pairs_are_said_to_lack() -> None:
    (found,) = contrasts({"p": HAND, "q": HAND}, 200, 0)
    held = replace(found.result, low=0.01, high=0.2, p_holm=0.08, pairs_needed=0.0)
    said = choice([prompt_row(HUNDRED, HAND, 200, 0)], [Contrast("p", "q", held)])
    assert "It is not told apart from q; fewer comparisons at once might tell." in said


def figures(name: str) -> PromptFigures:
    return PromptFigures(name, HUNDRED.scale, HUNDRED.zone, HUNDRED.ranges)


def test_no_labelled_pairs_are_told() -> None:
    none = answers(np.empty((0, 2, 3)))
    row = prompt_row(HUNDRED, none, 200, 0)
    assert math.isnan(row["accuracy"]) and row["n_pairs"] == 0
    assert "no labelled pairs" in choice([row], contrasts({"p": none, "q": none}, 200, 0))
