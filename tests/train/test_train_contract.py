"""What we build on in ms-swift, patched and plain: what both are and do, and what is named where it moved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trainer_support import HERE, stage_run

from btrm.train.grpo import GrpoConfig
from btrm.train.serve import server_options
from btrm.train.swift_series import own_version

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("need_swift")]


@pytest.fixture(scope="module", params=["plain", "patched"])
def told(
    request: pytest.FixtureRequest, ms_swifts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What one of both kinds of ms-swift says of itself."""
    out = tmp_path_factory.mktemp("contract") / f"{request.param}.json"
    path = os.pathsep.join(map(str, (HERE, ms_swifts[request.param])))
    command = [sys.executable, "-m", "swift_contract", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr[-3000:]
    return {"variant": request.param, **json.loads(out.read_text())}


def test_both_are_as_expected_and_named_as_what_they_are(told: dict[str, Any]) -> None:
    assert told["moved"] == ""
    patched = told["variant"] == "patched"
    assert told["version"] == (own_version("4.6.0") if patched else "4.6.0")
    assert told["parent"] == ("GRPOTrainer" if patched else "PlainGRPOTrainer")


def test_what_moved_is_named(told: dict[str, Any]) -> None:
    for what, said in told["moves"].items():
        assert what in said and "_compute_advantages" not in said


def test_the_floor_is_the_least_that_a_groups_std_counts_as(told: dict[str, Any]) -> None:
    plain = np.array(told["floored"]["0"])
    std = np.repeat([0.5**0.5, 0.01 * 0.5**0.5, 0.0], 2)
    for floor, found in told["floored"].items():
        expected = plain * (std + 1e-4) / (np.maximum(std, float(floor)) + 1e-4)
        assert np.array(found) == pytest.approx(expected, rel=1e-4)


def test_the_patched_package_has_our_sampler_and_our_options(told: dict[str, Any]) -> None:
    if told["variant"] == "plain":
        assert told["streams_differ"] == ["there is none"] and told["options"] == []
        assert "min_reward_std" in told["refused"] and "min_reward_std" in told["accepted"]
    else:
        assert told["streams_differ"] == [] and told["options"] == ["min_reward_std", "pair_sampler"]
        assert "needs scale_rewards=group, got batch" in told["refused"] and told["accepted"] == ""


def test_the_reward_gives_back_the_tag_that_ended_an_answer() -> None:
    from btrm.rewards.config import RewardConfig
    from btrm.train.swift_grpo import PairReward, PairWeight

    PairReward.config, PairReward.eos = RewardConfig(delta_temp=50).resolved(), "</s>"
    columns = {
        "label_id": ["a"] * 4,
        "pair_id": ["a"] * 4,
        "side": [0, 0, 1, 1],
        "preferred_side": [0] * 4,
        "finish_reason": ["stop", "stop", "stop", "length"],
    }
    rewards = PairReward(None)(["<s>90", "<s>70", "<s>10", "<s>1"], **columns)
    assert rewards[0] > rewards[1] > -0.7, "read as 90 and 70 against 10"
    assert rewards[3] <= rewards[2]
    assert [str(o) for o in PairReward.unlogged[-1].outcome_N] == ["scored"] * 3 + ["truncated"]
    assert PairWeight(None)(["x"] * 4, **columns) == [1.0] * 4


def test_no_code_that_comes_with_a_model_is_run() -> None:
    from swift.model import model_meta, register

    from btrm.train import swift_adapter

    swift_adapter.keep_remote_code_off()
    assert register.ModelLoader.default_trust_remote_code is False
    assert model_meta.AutoConfig is swift_adapter._OwnConfigs


def test_sft_and_merge_do_not_wait_for_vllm() -> None:
    heavy = ["vllm", "swift.rlhf_trainers.grpo_trainer"]
    code = "import sys, btrm.train.swift_adapter; print([name for name in sys.argv[1:] if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_rollout_server_has_our_options(tmp_path: Path) -> None:
    from dataclasses import fields

    from swift.arguments import RolloutArguments

    config = GrpoConfig(model_type="qwen2", template="chatml", use_vllm=True)
    ours = {*server_options(config, stage_run(tmp_path, "grpo"))}
    assert ours | {"port"} <= {field.name for field in fields(RolloutArguments)}
