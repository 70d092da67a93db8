"""What we build on in ms-swift: checked against the installed one, and named where it moved."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from trainer_support import stage_run

from btrm.config import ConfigError
from btrm.train.grpo import GrpoConfig
from btrm.train.serve import server_options

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("need_swift")]


def test_the_installed_ms_swift_is_as_expected_and_a_moved_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from swift.rlhf_trainers.grpo_trainer import GRPOTrainer

    from btrm.train.swift_adapter import check_contract
    from btrm.train.swift_grpo import contract

    check_contract(contract())
    monkeypatch.setattr(GRPOTrainer, "compute_std", lambda self, samples: (self, samples))
    with pytest.raises(ConfigError) as error:
        check_contract(contract())
    assert "GRPOTrainer.compute_std(self, samples, rewards_per_func)" in str(error.value)
    assert "_compute_advantages" not in str(error.value)


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
