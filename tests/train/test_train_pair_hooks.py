"""What is refused for pairs, and where a resumed trainer stands: on stand-ins that have what a trainer has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from btrm.train import pair_hooks
from btrm.train.pair_sampler import PairRepeatSampler

K = 2


class Rows:
    """As much of a Hugging Face data set as is looked at."""

    def __init__(self, **columns: list[Any]) -> None:
        self.data = pa.table(columns)
        self.column_names = list(columns)
        self._indices = None


def rows(n_pairs: int = 8, key: str = "pair_id") -> Any:
    return Rows(**{key: [f"p{n // 2}" for n in range(2 * n_pairs)], "side": [0, 1] * n_pairs})


def trainer(**changes: Any) -> Any:
    args = {
        "seed": 1,
        "generation_batch_size": 8,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "multi_turn_scheduler": None,
    }
    values = {
        "args": SimpleNamespace(**args),
        "accelerator": SimpleNamespace(num_processes=1),
        "template": SimpleNamespace(truncation_strategy="left", sequence_parallel_size=1),
        "state": SimpleNamespace(epoch=0.0, global_step=0),
        "num_generations": K,
        "num_iterations": 2,
        "enable_server_multi_turn": False,
        "_step": 0,
    }
    return SimpleNamespace(**{**values, **changes})


@pytest.mark.parametrize("key", ["pair_id", "label_id"])
def test_a_trainers_stream_is_that_of_its_batches(key: str) -> None:
    sampler = pair_hooks.train_sampler(trainer(), rows(key=key))
    assert sampler.plan.generation_batch_size == 8 and sampler.repeats == 2 * 2
    assert len(list(sampler)) == len(sampler) == 8 * 2 * K * 4


def test_the_epoch_is_the_trainers_own_where_nobody_told_it() -> None:
    resumed = trainer(state=SimpleNamespace(epoch=2.25, global_step=9))
    told = pair_hooks.train_sampler(trainer(), rows())
    told.set_epoch(2)
    assert list(pair_hooks.train_sampler(resumed, rows())) == list(told)


def test_what_dynamic_sampling_draws_is_drawn_once_and_fresh_each_time() -> None:
    asked = trainer()
    with pair_hooks.resampling(asked):
        sampler = pair_hooks.train_sampler(asked, rows())
    first = list(sampler)
    assert sampler.repeats == 1 and len(first) == 8 * 2 * K
    asked.state.global_step = 7
    again = list(sampler)
    assert sorted(again) == sorted(first) and again != first
    assert pair_hooks.train_sampler(asked, rows()).repeats == 4, "only while it is resampling"


@pytest.mark.parametrize(
    ("step", "accumulation", "found"), [(0, 1, 0), (5, 1, 5), (16, 1, 0), (21, 1, 5), (3, 2, 6), (9, 2, 2)]
)
def test_a_resumed_trainer_stands_where_its_data_are(step: int, accumulation: int, found: int) -> None:
    resumed = trainer(state=SimpleNamespace(epoch=0.0, global_step=step))
    resumed.args.gradient_accumulation_steps = accumulation
    assert pair_hooks.train_sampler(resumed, rows()).micro_steps == 16
    pair_hooks.find_step(resumed)
    assert resumed._step == found
    resumed._step += 1
    pair_hooks.find_step(resumed)
    assert resumed._step == found + 1, "once"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"template": SimpleNamespace(truncation_strategy="raise", sequence_parallel_size=1)},
            "truncation_strategy delete",
        ),
        ({"template": SimpleNamespace(truncation_strategy="left", sequence_parallel_size=2)}, "sequence_parallel_size"),
        ({"enable_server_multi_turn": True}, "a multi-turn scheduler"),
        ({"num_generations": 3}, "generation_batch_size: 8 does not give each of 1 process"),
        ({"accelerator": SimpleNamespace(num_processes=8)}, "generation_batch_size: 8"),
    ],
)
def test_what_would_part_pairs_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        pair_hooks.train_sampler(trainer(**changes), rows())


@pytest.mark.parametrize("columns", [{"side": [0, 1]}, {"pair_id": ["a", "a"]}])
def test_rows_that_name_no_pair_are_refused(columns: dict[str, list[Any]]) -> None:
    with pytest.raises(ValueError, match=r"rows need the columns side .* and pair_id or label_id"):
        pair_hooks.train_sampler(trainer(), Rows(**columns))
    with pytest.raises(ValueError, match="SimpleNamespace with none"):
        pair_hooks.train_sampler(trainer(), SimpleNamespace())


def test_a_loader_that_deals_otherwise_is_refused() -> None:
    asked = trainer()
    sampler = pair_hooks.train_sampler(asked, rows())

    def loader(sampler: Any, batch_size: int = 8, split: bool = False) -> Any:
        inner = SimpleNamespace(sampler=sampler, batch_size=batch_size)
        return SimpleNamespace(batch_sampler=SimpleNamespace(batch_sampler=inner, split_batches=split))

    right = loader(sampler)
    assert pair_hooks.check_loader(asked, right) is right and isinstance(sampler, PairRepeatSampler)
    for wrong in (loader(sampler, 4), loader(sampler, split=True), loader(range(64))):
        with pytest.raises(ValueError, match="dispatch_batches and split_batches must be off"):
            pair_hooks.check_loader(asked, wrong)


@pytest.mark.parametrize(
    ("floor", "scale", "holds"), [(0.0, "batch", True), (0.1, "group", True), (0.1, "none", False)]
)
def test_a_floor_needs_a_groups_std(floor: float, scale: str, holds: bool) -> None:
    options = SimpleNamespace(min_reward_std=floor, scale_rewards=scale)
    if holds:
        pair_hooks.check_options(options)
    else:
        with pytest.raises(ValueError, match="needs scale_rewards=group, got none"):
            pair_hooks.check_options(options)
    with pytest.raises(ValueError, match="0 or more"):
        pair_hooks.check_options(SimpleNamespace(min_reward_std=-1.0, scale_rewards="group"))
