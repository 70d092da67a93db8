"""What real ms-swift GRPO runs train on, written down at every micro-step and counted."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from trainer_support import HERE, TINY, stage_run, write_rows

from btrm.rewards.config import RewardConfig
from btrm.runs import Resources, write_json
from btrm.train.grpo import GrpoConfig, batch_plan, grpo_options
from btrm.train.launch import Job, run_job
from btrm.train.options import make_order, world_size
from btrm.train.pair_sampler import BatchPlan

pytestmark = [pytest.mark.usefixtures("need_swift")]
K = 2
REWARD = RewardConfig(name=f"{HERE / 'pair_reward.py'}:varied")


@dataclass(frozen=True)
class Cell:
    """One run: W processes, steps per generation, iterations; P = W pairs or more in a batch."""

    world: int
    spg: int
    iterations: int
    dynamic: bool = False
    pairs: int = 9

    @property
    def name(self) -> str:
        return f"w{self.world}-s{self.spg}-i{self.iterations}{'-dynamic' if self.dynamic else ''}"

    @property
    def plan(self) -> BatchPlan:
        per_device = 2 * K if self.spg == 1 else K
        return BatchPlan(self.world, per_device, self.spg, K, self.iterations)

    @property
    def per_epoch(self) -> int:
        """Micro-steps an epoch."""
        return self.pairs // self.plan.pairs * self.plan.repeats

    def config(self, rows: Path, model: Path, epochs: float) -> GrpoConfig:
        plan = self.plan
        return GrpoConfig.build(
            {
                **TINY,
                "model": str(model),
                "rows": str(rows),
                "reward": REWARD,
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
                "logging_steps": 1000,
                "temperature": 1.0,
            }
        )


def order_of(cell: Cell, root: Path, model: Path, epochs: float, resume: Path | None = None) -> Path:
    """Write a cell's order; return its path."""
    rows = root / "rows.jsonl"
    if not rows.exists():
        write_rows(rows, cell.pairs)
    run, config = stage_run(root, cell.name), cell.config(rows, model, epochs)
    plan = batch_plan(config, world_size(config, run))
    assert plan == cell.plan
    options = grpo_options(config, run, rows, plan)
    if resume is not None:
        options["resume_from_checkpoint"] = str(resume)
    path = run.dir / "trainer.json"
    write_json(path, make_order(config, run, options).model_dump(mode="json"))
    return path


def train(orders: list[Path], world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run several orders in one launch of the recording trainer."""
    monkeypatch.setenv("PYTHONPATH", str(HERE))
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


@pytest.mark.slow
def test_two_ranks_train_on_every_pair_once_and_resume_in_epoch_2(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [Cell(2, 1, 1), Cell(2, 2, 2)]
    orders = [order_of(cell, tmp_path, tiny_model, 1.5) for cell in cells]
    train(orders, 2, monkeypatch)
    whole: dict[str, list[list[dict[str, Any]]]] = {}
    again: list[Path] = []
    for cell in cells:
        directory = tmp_path / cell.name
        whole[cell.name] = seen(directory, 2)
        (checkpoint,) = (directory / "checkpoints").glob("checkpoint-*")
        again.append(order_of(cell, tmp_path, tiny_model, 2, checkpoint))
    train(again, 2, monkeypatch)
    for cell in cells:
        check_cell(cell, tmp_path / cell.name, 2)


@pytest.mark.slow
def test_dynamic_sampling_keeps_pairs_whole_and_resumes(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = Cell(2, 2, 1, dynamic=True)
    train([order_of(cell, tmp_path, tiny_model, 1.5)], 2, monkeypatch)
    assert flat_labels(tmp_path)
    (checkpoint,) = (tmp_path / cell.name / "checkpoints").glob("checkpoint-*")
    train([order_of(cell, tmp_path, tiny_model, 2, checkpoint)], 2, monkeypatch)
    for steps in seen(tmp_path / cell.name, 2):
        assert [step["step"] for step in steps] == list(range(2 * cell.per_epoch)), "none lost, none twice"
        for at in range(0, len(steps), cell.spg):  # a rank's generation batch
            rows: Counter[tuple[str, int]] = Counter(tuple(r) for s in steps[at : at + cell.spg] for r in s["rows"])
            assert all(rows[label, 1 - side] == count for (label, side), count in rows.items())
            assert not {label for label, _ in rows} & flat_labels(tmp_path), "pairs that teach nothing are replaced"


def flat_labels(root: Path) -> set[str]:
    """Return the pairs whose completions all earn the same from `pair_reward.py:varied`."""
    return {label for label in labels_of(root / "rows.jsonl") if int(label[:4], 16) % 3 == 0}


def labels_of(rows: Path) -> set[str]:
    return {json.loads(line)["label_id"] for line in rows.read_text().splitlines()}
