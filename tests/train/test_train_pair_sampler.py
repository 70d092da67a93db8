"""The sampler's stream, dealt to ranks by accelerate's own shards, counted row by row."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from btrm.train.pair_sampler import BatchPlan, PairRepeatSampler, index_pairs

K = 2


def rows_of(n_pairs: int) -> np.ndarray:
    return np.arange(2 * n_pairs).reshape(-1, 2)


def deal(sampler: PairRepeatSampler, plan: BatchPlan, skip: int = 0) -> list[list[list[int]]]:
    """Return [rank][micro-step] -> rows, through torch's BatchSampler and accelerate's shard, as the trainer does."""
    from accelerate.data_loader import BatchSamplerShard, SkipBatchSampler
    from torch.utils.data import BatchSampler

    local = plan.per_device * plan.steps_per_generation
    shards = [
        BatchSamplerShard(BatchSampler(sampler, local, drop_last=False), plan.world_size, rank)
        for rank in range(plan.world_size)
    ]
    return [[list(batch) for batch in SkipBatchSampler(shard, skip)] for shard in shards]


CELLS = [(w, spg, it) for w in (1, 2, 4) for spg in (1, 2, 4) for it in (1, 2)]


@pytest.mark.parametrize(("world", "spg", "iterations"), CELLS)
@pytest.mark.parametrize("n_pairs", [8, 19])
def test_every_pair_is_dealt_once_an_epoch_and_whole(world: int, spg: int, iterations: int, n_pairs: int) -> None:
    plan = BatchPlan(world, 2 * K // min(spg, 2), spg, K, iterations)
    sampler = PairRepeatSampler(rows_of(n_pairs), plan, seed=3)
    dealt = deal(sampler, plan)
    assert {len(steps) for steps in dealt} == {n_pairs // plan.pairs * plan.repeats}
    generated: Counter[int] = Counter()
    for rank_steps in dealt:
        for start in range(0, len(rank_steps), plan.repeats):
            block = rank_steps[start : start + plan.repeats]
            assert all(rows == block[0] for rows in block), "micro-steps of one generation see one batch"
            rows = block[0]
            for at in range(0, len(rows), 2 * K):  # whole pairs on this rank: K of side 0, K of side 1
                pair = rows[at] // 2
                assert rows[at : at + 2 * K] == [2 * pair] * K + [2 * pair + 1] * K
            generated.update(row // 2 for row in rows[:: 2 * K])
    assert set(generated.values()) == {1}
    assert len(generated) == n_pairs // plan.pairs * plan.pairs


def test_length_is_that_of_the_stream() -> None:
    plan = BatchPlan(2, 4, 2, K, 2)
    sampler = PairRepeatSampler(rows_of(11), plan, seed=0)
    assert len(sampler) == len(list(sampler)) == 11 // plan.pairs * plan.pairs * 2 * K * 4


def test_epochs_differ_and_repeat_from_the_seed() -> None:
    plan = BatchPlan(1, 4, 1, K)
    first, again = (PairRepeatSampler(rows_of(12), plan, seed=5) for _ in range(2))
    epoch_0 = list(first)
    first.set_epoch(1)
    assert list(first) != epoch_0 == list(again)
    assert epoch_0 != list(PairRepeatSampler(rows_of(12), plan, seed=6))


@given(n_pairs=st.integers(4, 60), pairs=st.integers(1, 4), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_the_tail_rotates_so_that_all_pairs_rest_equally_often(n_pairs: int, pairs: int, seed: int) -> None:
    plan = BatchPlan(1, 2 * K * pairs, 1, K)
    sampler = PairRepeatSampler(rows_of(n_pairs), plan, seed)
    rests: Counter[int] = Counter()
    tails: list[set[int]] = []
    for epoch in range(n_pairs):
        tail = set(range(n_pairs)) - set(sampler.epoch_pairs(epoch).reshape(-1).tolist())
        assert len(tail) == n_pairs % plan.pairs
        tails.append(tail)
        rests.update(tail)
    assert set(rests.values()) <= {n_pairs % plan.pairs}
    if 2 * (n_pairs % plan.pairs) <= n_pairs:
        assert all(not one & two for one, two in pairwise(tails))


@pytest.mark.parametrize(("world", "spg", "iterations"), [(1, 1, 1), (2, 2, 1), (2, 2, 2), (1, 4, 2)])
def test_resuming_in_epoch_2_goes_on_where_it_stopped(world: int, spg: int, iterations: int) -> None:
    plan = BatchPlan(world, 4, spg, K, iterations)
    whole = PairRepeatSampler(rows_of(21), plan, seed=1)
    whole.set_epoch(2)
    dealt = deal(whole, plan)
    # accelerate forgot to tell the epoch; the trainer's own state knows it
    resumed = PairRepeatSampler(rows_of(21), plan, seed=1, current_epoch=lambda: 2)
    rest = deal(resumed, plan, skip=plan.repeats)
    assert rest == [steps[plan.repeats :] for steps in dealt]


def test_resampling_draws_each_batch_once() -> None:
    plan = BatchPlan(2, 4, 2, K, 2)
    sampler = PairRepeatSampler(rows_of(16), plan, seed=8, repeats=1)
    drawn = [tuple(step) for rank in deal(sampler, plan) for step in rank]
    assert len(drawn) == len(set(drawn)) == 2 * 16 // plan.pairs


@pytest.mark.parametrize(
    ("batch", "world", "per_device", "near"),
    [(128, 3, 2, "96 or 144"), (120, 8, 2, "128"), (130, 1, 2, "128 or 144"), (64, 2, 48, "96")],
)
def test_a_batch_that_parts_pairs_is_refused_with_the_rule(batch: int, world: int, per_device: int, near: str) -> None:
    with pytest.raises(ValueError) as error:
        BatchPlan.build(batch, world, per_device, 8)
    assert f"Nearest valid: {near}" in str(error.value)
    assert "(per_device_batch_size * steps_per_generation) % (2 * num_generations)" in str(error.value)


def test_the_published_batch_is_whole_on_one_to_eight_gpus() -> None:
    assert [BatchPlan.build(128, w, 2, 8).steps_per_generation for w in (1, 2, 4, 8)] == [64, 32, 16, 8]


@given(st.integers(1, 4), st.integers(1, 9), st.integers(2, 6), st.integers(1, 400))
@settings(deadline=None)
def test_the_nearest_values_named_are_valid(world: int, per_device: int, generations: int, batch: int) -> None:
    try:
        plan = BatchPlan.build(batch, world, per_device, generations)
        assert plan.generation_batch_size == batch
        assert per_device * plan.steps_per_generation % (2 * generations) == 0
    except ValueError as error:
        for value in str(error).rpartition("Nearest valid: ")[2].split(" or "):
            assert BatchPlan.build(int(value), world, per_device, generations).generation_batch_size == int(value)


def test_fewer_pairs_than_a_batch_are_refused() -> None:
    plan = BatchPlan.build(128, 1, 2, 8)
    with pytest.raises(ValueError, match=r"8 pairs.*there are 7; at most 112 would do"):
        PairRepeatSampler(rows_of(7), plan, seed=0)


def test_pairs_are_found_wherever_their_rows_stand() -> None:
    assert index_pairs(["b", "a", "b", "a"], [1, 0, 0, 1]).tolist() == [[2, 0], [1, 3]]


@pytest.mark.parametrize(("keys", "sides"), [(["a"], [0]), (["a", "a"], [0, 0]), (["a", "a", "a"], [0, 1, 1])])
def test_a_pair_without_one_row_a_side_is_refused(keys: list[str], sides: list[int]) -> None:
    with pytest.raises(ValueError, match="pair 'a': must have exactly one row"):
        index_pairs(keys, sides)
