"""What an ms-swift is and does, told in one process, since it takes long to load: python swift_contract.py OUT.json"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from swift.arguments import RLHFArguments
from swift.rl_core import advantage
from swift.rlhf_trainers.arguments import GRPOConfig
from swift.rlhf_trainers.grpo_trainer import GRPOTrainer

from btrm.config import ConfigError
from btrm.train import pair_sampler, swift_pairs
from btrm.train.swift_adapter import check_contract
from btrm.train.swift_grpo import PairGRPOTrainer, contract
from btrm.versions import package_version

OPTIONS = {"pair_sampler", "min_reward_std"}
REWARD_N = torch.tensor([0.0, 1.0, 0.0, 0.01, 2.0, 2.0])


def moved() -> str:
    """Return what a check says of this ms-swift; \"\" where all is as expected."""
    try:
        check_contract(contract())
    except ConfigError as error:
        return str(error)
    return ""


@contextlib.contextmanager
def without(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Move one of ms-swift's internals."""
    kept = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, kept)


def moves() -> dict[str, str]:
    """Return what is said where something moved."""
    said: dict[str, str] = {}
    with without(GRPOTrainer, "compute_std", lambda self, samples: (self, samples)):
        said["GRPOTrainer.compute_std(self, samples, rewards_per_func)"] = moved()
    with without(advantage, "compute_advantages", lambda rewards, *_: (rewards[:, 0], rewards[:, 0])):
        said["compute_advantages divides by a group's std + 1e-4"] = moved()
    return said


def floored(floor: float) -> list[float]:
    """Return this ms-swift's advantages of REWARD_N, in groups of 2, with a floor of the std."""
    if not issubclass(PairGRPOTrainer, swift_pairs.PlainGRPOTrainer):
        return advantage.compute_advantages(REWARD_N[:, None], torch.ones(1), 2, min_reward_std=floor)[0].tolist()
    return swift_pairs.floored(REWARD_N, 2, floor).tolist()


def streams_differ() -> list[str]:
    """Return where the patched package's sampler gives another stream than ours."""
    try:
        theirs = importlib.import_module("swift.rlhf_trainers.pair_sampler")
    except ModuleNotFoundError:
        return ["there is none"]
    rows_P2 = np.arange(38).reshape(-1, 2)
    different: list[str] = []
    for world, spg, iterations, k in itertools.product((1, 2, 4), (1, 2, 4), (1, 2), (2, 4)):
        samplers: list[Any] = []
        for module in (pair_sampler, theirs):
            plan = module.BatchPlan.build(2 * k * world * spg, world, 2 * k, k, iterations)
            samplers.append(module.PairRepeatSampler(rows_P2, plan, seed=3, current_epoch=lambda: 2))
        if list(samplers[0]) != list(samplers[1]) or len(samplers[1]) != len(list(samplers[1])):
            different.append(f"W={world} spg={spg} iterations={iterations} K={k}")
    return different


def refusal(**options: Any) -> str:
    """Return what a training with these options is refused with."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            GRPOConfig(output_dir=folder, use_cpu=True, bf16=False, num_generations=2, **options)
        except (TypeError, ValueError) as error:
            return str(error)
    return ""


def main() -> None:
    told = {
        "version": package_version("ms-swift"),
        "parent": PairGRPOTrainer.__mro__[2].__name__,
        "moved": moved(),
        "moves": moves(),
        "options": sorted(OPTIONS & {field.name for field in fields(RLHFArguments)}),
        "floored": {floor: floored(float(floor)) for floor in ("0", "0.05", "1")},
        "streams_differ": streams_differ(),
        "refused": refusal(min_reward_std=0.05, scale_rewards="batch"),
        "accepted": refusal(min_reward_std=0.05, scale_rewards="group"),
    }
    Path(sys.argv[1]).write_text(json.dumps(told))


if __name__ == "__main__":
    main()
