"""What real ms-swift GRPO runs train on, written down at every micro-step and counted."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from trainer_support import HERE, TINY, stage_run, write_rows

from btrm.publishing import write_json
from btrm.rewards.config import RewardConfig
from btrm.runs import Resources
from btrm.train.grpo import GrpoConfig, batch_plan, grpo_options
from btrm.train.launch import Job, run_job
from btrm.train.options import make_order, world_size
from btrm.train.pair_sampler import BatchPlan
from btrm.train.swift_series import own_version

pytestmark = [pytest.mark.usefixtures("need_swift")]
K, FLOOR = 2, 2.0
REWARD = RewardConfig(name=f"{HERE / 'pair_reward.py'}:varied")


@dataclass(frozen=True)
class Cell:
    """One run: W processes, steps per generation, iterations; P = W pairs or more in a batch."""

    world: int
    spg: int
    iterations: int
    dynamic: bool = False
    stock: bool = False
    pairs: int = 9

    @property
    def name(self) -> str:
        return f"w{self.world}-s{self.spg}-i{self.iterations}{'-dynamic' * self.dynamic}{'-stock' * self.stock}"

    @property
    def plan(self) -> BatchPlan:
        per_device = 2 * K if self.spg == 1 else K
        return BatchPlan(self.world, per_device, self.spg, K, self.iterations)

    @property
    def per_epoch(self) -> int:
        """Micro-steps an epoch."""
        return self.pairs // self.plan.pairs * self.plan.repeats

    @property
    def halt(self) -> float:
        """The epochs after which a run is resumed: in the middle of a generation batch, where it is drawn again."""
        return 1.5 if self.dynamic else 1.6

    def config(self, rows: Path, model: Path, epochs: float) -> GrpoConfig:
        plan = self.plan
        return GrpoConfig.build(
            {
                **TINY,
                "model": str(model),
                "rows": str(rows),
                "sampler": "stock" if self.stock else "pair",
                "reward": REWARD.model_copy(update={"lone_side": "penalise"}) if self.stock else REWARD,
                "reward_std_floor": 0.0 if self.stock else FLOOR,
                "num_generations": K,
                "generation_batch_size": plan.generation_batch_size,
                "per_device_batch_size": plan.per_device,
                "num_iterations": self.iterations,
                "max_steps": int(self.per_epoch * epochs),
                "save_steps": 1000,
                "max_completion_length": 4,
                "dynamic_sample": self.dynamic,
                "cpu_processes": self.world,
                "log_completions": False,
                "logging_steps": 1,
                "temperature": 1.0,
            }
        )


def order_of(cell: Cell, root: Path, model: Path, epochs: float, resumed: float | None = None) -> Path:
    """Write a cell's order; return its path. `resumed`: the epochs that another order will have trained before."""
    rows = root / "rows.jsonl"
    if not rows.exists():
        write_rows(rows, cell.pairs)
    run, config = stage_run(root, cell.name), cell.config(rows, model, epochs)
    plan = batch_plan(config, world_size(config, run))
    assert plan == cell.plan
    options = grpo_options(config, run, rows, plan)
    if resumed is not None:
        options["resume_from_checkpoint"] = str(run.dir / f"checkpoints/checkpoint-{int(cell.per_epoch * resumed)}")
    path = run.dir / f"trainer-{epochs}.json"
    write_json(path, make_order(config, run, options).model_dump(mode="json"))
    return path


def train(orders: list[Path], world: int, monkeypatch: pytest.MonkeyPatch, swift: Path | None = None) -> None:
    """Run several orders in one launch of the recording trainer, with the ms-swift in a folder or the installed one."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(str(path) for path in (HERE, swift) if path))
    listed = orders[0].parent.parent / f"orders-{world}.json"
    write_json(listed, [str(o) for o in orders])
    log = listed.with_suffix(".log")
    run_job(Job("recording_trainer", listed, world, True, log, None), Resources())


def seen(directory: Path, world: int) -> list[list[dict[str, Any]]]:
    """Return [rank][micro-step] -> what was trained on."""
    files = [directory / f"seen-{rank}.jsonl" for rank in range(world)]
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


def check_epoch(ranks: list[list[dict[str, Any]]], cell: Cell) -> set[str]:
    """Count one epoch's micro-steps; return the pairs trained on.

    Each completion's row (pair, side) must stand K times for each iteration, over all ranks and micro-steps, and both
    sides on one rank.
    """
    times: Counter[tuple[str, int]] = Counter()
    home: dict[str, set[int]] = {}
    for rank, steps in enumerate(ranks):
        for step in steps:
            for label, side in step["rows"]:
                times[label, side] += 1
                home.setdefault(label, set()).add(rank)
    labels = {label for label, _ in times}
    assert {times[label, side] for label in labels for side in (0, 1)} == {K * cell.iterations}
    assert all(len(ranks_of) == 1 for ranks_of in home.values())
    return labels


def check_cell(cell: Cell, directory: Path, epochs: int) -> None:
    plan, per_epoch = cell.plan, cell.per_epoch
    ranks = seen(directory, cell.world)
    assert [len(steps) for steps in ranks] == [per_epoch * epochs] * cell.world
    trained: list[set[str]] = []
    for epoch in range(epochs):
        window = slice(epoch * per_epoch, (epoch + 1) * per_epoch)
        trained.append(check_epoch([steps[window] for steps in ranks], cell))
        assert len(trained[-1]) == cell.pairs // plan.pairs * plan.pairs
    if cell.pairs % plan.pairs:
        assert trained[0] != trained[1], "another tail rests each epoch"


@pytest.mark.parametrize(
    ("pairs", "epochs"), [pytest.param(9, 2, marks=pytest.mark.slow), pytest.param(33, 3, marks=pytest.mark.soak)]
)
@pytest.mark.parametrize("world", [1, 2])
def test_every_cell_trains_on_every_pair_once(
    world: int, pairs: int, epochs: int, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [Cell(world, spg, iterations, pairs=pairs) for spg in (1, 2, 4) for iterations in (1, 2)]
    train([order_of(cell, tmp_path, tiny_model, epochs) for cell in cells], world, monkeypatch)
    for cell in cells:
        check_cell(cell, tmp_path / cell.name, epochs)


CELLS = [Cell(2, 1, 1), Cell(2, 2, 2), Cell(2, 2, 1, dynamic=True)]
STOCK = Cell(2, 2, 2, stock=True)


@pytest.fixture(scope="module")
def trainings(
    ms_swifts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, tiny_model: Path
) -> Callable[[str], Path]:
    """Train each cell into its second epoch, then on; then with the stock sampler. One launch a variant."""

    @cache
    def run(variant: str) -> Path:
        root = tmp_path_factory.mktemp(variant)
        first = [order_of(cell, root, tiny_model, cell.halt) for cell in CELLS]
        again = [order_of(cell, root, tiny_model, 2, resumed=cell.halt) for cell in CELLS]
        with pytest.MonkeyPatch.context() as patch:
            train([*first, *again, order_of(STOCK, root, tiny_model, 1)], 2, patch, ms_swifts[variant])
        return root

    return run


@pytest.fixture(scope="module", params=["plain", "patched"])
def trained(request: pytest.FixtureRequest, trainings: Callable[[str], Path]) -> Path:
    return trainings(request.param)


@pytest.mark.slow
def test_two_ranks_train_on_every_pair_once_and_resume_in_epoch_2(trained: Path) -> None:
    for cell in CELLS[:2]:
        check_cell(cell, trained / cell.name, 2)


@pytest.mark.slow
def test_dynamic_sampling_keeps_pairs_whole_and_resumes(trained: Path) -> None:
    cell = CELLS[2]
    assert flat_labels(trained)
    for steps in seen(trained / cell.name, 2):
        assert [step["step"] for step in steps] == list(range(2 * cell.per_epoch)), "none lost, none twice"
        for at in range(0, len(steps), cell.spg):  # a rank's generation batch
            rows: Counter[tuple[str, int]] = Counter(tuple(r) for s in steps[at : at + cell.spg] for r in s["rows"])
            assert all(rows[label, 1 - side] == count for (label, side), count in rows.items())
            assert not {label for label, _ in rows} & flat_labels(trained), "pairs that teach nothing are replaced"


@pytest.mark.slow
def test_the_floor_is_a_least_std(trained: Path) -> None:
    """Rewards are 0, 1 or 2, 3 by K = 2: a group's std is 0.71 and counts as 2, or it is 0."""
    for cell in CELLS:
        for steps in seen(trained / cell.name, 2):
            found = {round(abs(value), 6) for step in steps for value in step["advantages"]}
            assert found - {0.0} == {round(0.5 / (FLOOR + 1e-4), 6)}


@pytest.mark.slow
def test_plain_and_patched_train_alike_to_the_last_bit(trainings: Callable[[str], Path]) -> None:
    """Of all runs, that with the stock sampler too: without its options, a patched ms-swift is a plain one."""
    plain, patched = trainings("plain"), trainings("patched")
    versions = [(root / "orders-2.swift").read_text() for root in (plain, patched)]
    assert versions == ["4.6.0 PlainGRPOTrainer", f"{own_version('4.6.0')} GRPOTrainer"]
    for cell in (*CELLS, STOCK):
        assert seen(plain / cell.name, 2) == seen(patched / cell.name, 2)
        assert losses(plain / cell.name) == losses(patched / cell.name)
        assert any(line["loss"] != 0 for line in losses(plain / cell.name))


def losses(directory: Path) -> list[dict[str, Any]]:
    """Return what a run has logged at each step, but for its speed and its memory."""
    lines = [json.loads(line) for line in (directory / "checkpoints" / "logging.jsonl").read_text().splitlines()]
    varies = re.compile("time|speed|memory|elapsed|seconds|_per_")
    return [{k: v for k, v in line.items() if not varies.search(k)} for line in lines if "loss" in line]


def flat_labels(root: Path) -> set[str]:
    """Return the pairs whose completions all earn the same from `pair_reward.py:varied`."""
    return {label for label in labels_of(root / "rows.jsonl") if int(label[:4], 16) % 3 == 0}


def labels_of(rows: Path) -> set[str]:
    return {json.loads(line)["label_id"] for line in rows.read_text().splitlines()}
