"""What holds for any batch, whatever the reward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btrm.rewards.config import RewardConfig
from btrm.rewards.pair_batch import PairBatch, without_dust
from btrm.rewards.published import PUBLISHED
from btrm.rewards.reward import Rewards, compute_rewards

Columns = dict[str, Any]
NAMES = st.sampled_from(sorted(PUBLISHED))
MODES = st.fixed_dictionaries(
    {"unparsed": st.sampled_from(["floor", "published"]), "weight_on": st.sampled_from(["advantage", "reward"])}
)


@st.composite
def columns(draw: st.DrawFn) -> Columns:
    """Pairs with K completions a side; some have no score."""
    k = draw(st.integers(1, 4))
    rows: list[tuple[float, str, int, int]] = []
    for pair in range(draw(st.integers(1, 4))):
        preferred = draw(st.integers(0, 1))
        for side in (0, 1):
            for _ in range(k):
                score = draw(st.one_of(st.just(np.nan), st.integers(0, 100).map(float)))
                rows.append((score, f"p{pair}", side, preferred))
    names = ("scores", "pair_id", "side", "preferred_side")
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def rewards_of(rows: Columns, config: RewardConfig) -> Rewards:
    return compute_rewards(PairBatch.build(**rows), config)


def close(a: Any, b: Any) -> None:
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


@settings(deadline=None)
@given(columns(), NAMES, MODES)
def test_renaming_the_sides_changes_nothing(rows: Columns, name: str, modes: dict[str, Any]):
    config = RewardConfig(name=name, **modes)
    swapped = {**rows, **{key: [1 - s for s in rows[key]] for key in ("side", "preferred_side")}}
    close(rewards_of(swapped, config).reward_N, rewards_of(rows, config).reward_N)


@settings(deadline=None)
@given(columns(), NAMES, MODES, st.randoms())
def test_the_order_of_rows_does_not_matter_to_the_mean_opponent(
    rows: Columns, name: str, modes: dict[str, Any], random: Any
):
    order = list(range(len(rows["scores"])))
    random.shuffle(order)
    if PUBLISHED[name].opponent == "aligned":
        order.sort(key=lambda n: (rows["pair_id"][n], rows["side"][n], n))  # ranks within a side must stand
        order.reverse()
    config = RewardConfig(name=name, **modes)
    moved = rewards_of({key: [values[n] for n in order] for key, values in rows.items()}, config)
    whole = rewards_of(rows, config)
    close(moved.reward_N, whole.reward_N[order])
    close(moved.weight_N, whole.weight_N[order])


@settings(deadline=None)
@given(columns(), NAMES, MODES)
def test_every_completion_twice_earns_the_same(rows: Columns, name: str, modes: dict[str, Any]):
    config = RewardConfig(name=name, **modes)
    twice = rewards_of({key: values + values for key, values in rows.items()}, config)
    close(twice.reward_N, np.tile(rewards_of(rows, config).reward_N, 2))


@settings(deadline=None)
@given(columns(), NAMES, MODES)
def test_other_pairs_do_not_matter(rows: Columns, name: str, modes: dict[str, Any]):
    config = RewardConfig(name=name, **modes)
    mine = [n for n, pair in enumerate(rows["pair_id"]) if pair == "p0"]
    alone = rewards_of({key: [values[n] for n in mine] for key, values in rows.items()}, config)
    close(alone.reward_N, rewards_of(rows, config).reward_N[mine])


@settings(deadline=None)
@given(columns(), NAMES, st.sampled_from(["advantage", "reward"]), st.floats(-20, 20))
def test_unparsed_never_earns_more_than_the_lowest_scored(rows: Columns, name: str, weight_on: Any, parse_fail: float):
    config = RewardConfig(name=name, weight_on=weight_on, parse_fail=parse_fail)
    reward_N = rewards_of(rows, config).reward_N
    batch = PairBatch.build(**rows)
    unparsed = np.isnan(batch.score_N)
    assert (reward_N[unparsed] <= parse_fail).all()
    for group in set(batch.group_N.tolist()):
        side = batch.group_N == group
        if unparsed[side].any() and (~unparsed[side]).any():
            assert reward_N[side & unparsed].max() <= reward_N[side & ~unparsed].min()


@settings(deadline=None)
@given(columns(), NAMES)
def test_the_floor_leaves_scored_completions_alone(rows: Columns, name: str):
    floor, published = (rewards_of(rows, RewardConfig(name=name, unparsed=mode)) for mode in ("floor", "published"))
    scored = ~np.isnan(np.array(rows["scores"]))
    close(floor.reward_N[scored], published.reward_N[scored])


@settings(deadline=None)
@given(NAMES, st.integers(0, 99), st.integers(0, 100), st.integers(0, 1))
def test_a_larger_margin_never_earns_less(name: str, score: int, opponent: int, preferred: int):
    config = RewardConfig(name=name)
    better = score + 1 if preferred == 0 else score

    def reward(own: float) -> float:
        rows = {"pair_id": ["p", "p"], "side": [0, 1], "preferred_side": [preferred] * 2}
        return float(rewards_of({"scores": [own, float(opponent)], **rows}, config).reward_N[0])

    worse = score if preferred == 0 else score + 1
    assert reward(better) >= reward(worse)


@settings(deadline=None)
@given(columns(), NAMES)
def test_weights_on_the_advantage_are_the_ones_that_stood_in_the_reward(rows: Columns, name: str):
    apart = rewards_of(rows, RewardConfig(name=name, unparsed="published", weight_on="advantage"))
    inside = rewards_of(rows, RewardConfig(name=name, unparsed="published", weight_on="reward"))
    earned = ~np.isnan(apart.margin_N)
    close((apart.reward_N * apart.weight_N)[earned], inside.reward_N[earned])
    close(inside.weight_N, np.ones(len(earned)))
    batch = PairBatch.build(**rows)
    for pair in range(len(batch.pair_ids)):
        assert len(set(apart.weight_N[batch.pair_N == pair].tolist())) == 1


TENTHS = st.integers(10, 50).map(lambda tenths: tenths / 10)


@settings(deadline=None)
@given(st.lists(TENTHS, min_size=1, max_size=8), NAMES, st.randoms(use_true_random=False))
def test_means_that_are_equal_on_paper_are_a_tie(scores: list[float], name: str, random: Any):
    shuffled = random.sample(scores, len(scores))
    rows: Columns = {
        "scores": scores + shuffled,
        "pair_id": ["p"] * 2 * len(scores),
        "side": [0] * len(scores) + [1] * len(scores),
        "preferred_side": [0] * 2 * len(scores),
    }
    batch = PairBatch.build(**rows)
    assert without_dust(batch.pair_margin()).tolist() == [0.0]
    tie = {**rows, "scores": [3.0] * 2 * len(scores)}
    close(rewards_of(rows, RewardConfig(name=name)).weight_N, rewards_of(tie, RewardConfig(name=name)).weight_N)


def test_float_dust_is_no_win_but_as_published():
    rows: Columns = {"pair_id": ["p"] * 4, "side": [0, 1, 1, 1], "preferred_side": [0] * 4}
    rows["scores"] = [2.2, 2.0, 2.1, 2.5]  # the mean of the last three is 2.1999999999999997
    assert PairBatch.build(**rows).margin_over("mean")[0] > 0
    for name, tied, won in (("bt_pointwise_binary", -1.0, 1.0), ("bt_pointwise_graded", 0.0, 1.2)):
        assert rewards_of(rows, RewardConfig(name=name)).reward_N[0] == tied
        assert rewards_of(rows, RewardConfig(name=name, ties="published")).reward_N[0] == won
    assert PairBatch.build(**rows).margin_N[0] == 0.0


def test_a_margin_on_the_threshold_is_not_above_it():
    rows: Columns = {"scores": [1.3, 1.0], "pair_id": ["p"] * 2, "side": [0, 1], "preferred_side": [0] * 2}
    config = RewardConfig(name="bt_pointwise_graded", score_temp=1, grade_thresh=0.3)
    assert rewards_of(rows, config).reward_N.tolist() == [1.2, 1.2]


@pytest.mark.parametrize("name", ["bt_pointwise_graded_hardpair", "bt_hard_margin", "bt_pointwise_baseline_hardmine"])
def test_normalisation_cancels_a_weight_in_the_reward_but_not_on_the_advantage(name: str):
    rows: Columns = {
        "scores": [90.0, 60.0, 20.0, 30.0, 45.0, 35.0, 40.0, 41.0],
        "pair_id": ["easy"] * 4 + ["hard"] * 4,
        "side": [0, 0, 1, 1] * 2,
        "preferred_side": [0] * 8,
    }

    def size(weight_on: Any, pair: slice) -> float:
        config = RewardConfig(name=name, weight_on=weight_on, low=1.0, high=2.0, grade_thresh=1.8)
        rewards = rewards_of(rows, config)
        group = rewards.reward_N[pair][:2]
        deviation = group.std()
        advantage = (group - group.mean()) / (deviation if deviation > 0 else 1.0) * rewards.weight_N[pair][:2]
        return float(np.abs(advantage).max())

    easy, hard = slice(0, 4), slice(4, 8)
    if name != "bt_pointwise_graded_hardpair":
        assert size("reward", easy) == pytest.approx(size("reward", hard))
        assert size("advantage", easy) < size("advantage", hard)
    weights = rewards_of(rows, RewardConfig(name=name)).weight_N
    assert weights[0] < weights[4]
