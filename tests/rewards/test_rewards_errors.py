"""What is refused, and how it is said."""

from __future__ import annotations

import io
import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from btrm.config import ConfigError
from btrm.rewards.cli import add_arguments, batch_rewards, main
from btrm.rewards.config import RewardConfig, refuse_environment
from btrm.rewards.pair_batch import PairBatch
from btrm.rewards.reward import compute_rewards, reward_completions

PAIR: dict[str, Any] = {"scores": [70.0, 40.0], "pair_id": ["a", "a"], "side": [0, 1], "preferred_side": [0, 0]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"side": [0, 2]}, "side: 0 or 1 is valid, got 2 for pair_id 'a'"),
        ({"side": [0, -1]}, "side: 0 or 1 is valid, got -1 for pair_id 'a'"),
        ({"side": [0, None]}, "side: 0 or 1 is valid, got None for pair_id 'a'"),
        ({"preferred_side": [0, 300]}, "preferred_side: 0 or 1 is valid, got 300 for pair_id 'a'"),
        ({"preferred_side": [0, 1]}, "disagree on preferred_side in pair_id 'a'"),
        ({"pair_id": ["a", "b"]}, "one side only in pair_id 'a', 'b'"),
        ({"pair_id": [1, 2]}, "one side only in pair_id 1, 2"),
        ({"pair_id": ["a", 1]}, "neither all text nor all integers"),
        ({"pair_id": ["a", None]}, "got null"),
        ({"pair_id": [0.5, 0.5]}, "text or integers are valid, got double"),
        ({"scores": [1.0]}, "columns of different lengths"),
        ({"scores": [1.0, np.inf]}, "finite"),
        ({"scores": ["high", 1.0]}, "numbers or NaN"),
    ],
)
def test_a_bad_batch(changes: dict[str, Any], message: str):
    with pytest.raises(ConfigError) as error:
        PairBatch.build(**{**PAIR, **changes})
    assert message in str(error.value)


def test_disagreement_within_a_side_is_seen_whatever_the_order():
    rows = {"scores": [1.0] * 4, "pair_id": ["a"] * 4, "side": [0, 0, 1, 1]}
    for preferred in ([1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]):
        with pytest.raises(ConfigError, match="disagree on preferred_side in pair_id 'a'"):
            PairBatch.build(**rows, preferred_side=preferred)


def test_a_lone_side_can_be_penalised():
    config = RewardConfig(lone_side="penalise", parse_fail=-7.0)
    rewards = reward_completions(["<s>5</s>"] * 3, ["a", "b", "b"], [1, 0, 1], [0, 0, 0], config)
    assert rewards.reward_N[0] == -7.0
    assert rewards.reward_N[1] == rewards.reward_N[2] != -7.0


def test_a_lone_side_raises_by_default():
    with pytest.raises(ConfigError, match="one side only in pair_id 'a'"):
        reward_completions(["<s>5</s>"] * 3, ["a", "b", "b"], [1, 0, 1], [0, 0, 0], RewardConfig())


def test_an_empty_batch_earns_nothing():
    assert len(reward_completions([], [], [], [], RewardConfig()).reward_N) == 0


def test_all_bad_fields_in_one_message():
    with pytest.raises(ConfigError) as error:
        RewardConfig.build({"name": "bt_pointwise_baselin", "parser": "score10_last", "delta_temp": 0, "hard_tau": -1})
    message = str(error.value)
    for part in ("did you mean bt_pointwise_baseline?", "did you mean score100_last?", "delta_temp", "hard_tau"):
        assert part in message


def test_published_names_are_taken_by_override():
    config = RewardConfig().override(["BT_DELTA_TEMP=5", "REWARD_NAME=bt_hard_margin", "BT_HARD_TAU=2"])
    assert (config.delta_temp, config.name, config.hard_tau) == (5.0, "bt_hard_margin", 2.0)
    with pytest.raises(ConfigError, match="did you mean BT_DELTA_TEMP"):
        RewardConfig().override(["BT_DELTA_TEM=5"])


def test_defaults_follow_the_named_reward():
    graded = RewardConfig(name="bt_pointwise_graded").resolved()
    binary = RewardConfig(name="bt_pointwise_binary", neg=-3.0).resolved()
    assert (graded.parse_fail, binary.parse_fail) == (-0.5, -3.0)
    assert RewardConfig(name="bt_pointwise_graded", parse_fail=-2.0).resolved().parse_fail == -2.0


def test_the_environment_is_refused_by_name():
    refuse_environment({"PATH": "/bin", "HF_HOME": "/x"})
    with pytest.raises(ConfigError, match=r"BT_DELTA_TEMP, REWARD_NAME.*--set BT_DELTA_TEMP=5.*--preset"):
        refuse_environment({"REWARD_NAME": "x", "BT_DELTA_TEMP": "5"})


def own(tmp_path: Path, body: str) -> RewardConfig:
    path = tmp_path / "mine.py"
    path.write_text(f"import numpy as np\ndef mine(batch, config):\n    return {body}\n")
    return RewardConfig(name=f"{path}:mine", parse_fail=-9.0)


def test_a_users_own_reward(tmp_path: Path):
    batch = PairBatch.build([70.0, np.nan, 40.0, 30.0], ["a"] * 4, [0, 0, 1, 1], [0] * 4)
    rewards = compute_rewards(batch, own(tmp_path, "batch.margin_N / config.delta_temp"))
    np.testing.assert_allclose(rewards.reward_N, [35 / 20, -9.0, 30 / 20, 40 / 20])


@pytest.mark.parametrize("body", ["[1.0]", "np.full(2, np.nan)", "np.full(2, np.inf)", "['a', 'b']", "None"])
def test_a_users_own_reward_that_is_no_reward(tmp_path: Path, body: str):
    with pytest.raises(ConfigError, match=r"mine.py:mine: "):
        compute_rewards(PairBatch.build(**PAIR), own(tmp_path, body))


LINE = {
    "reward": "bt_pointwise_binary",
    "parser": "score100_last",
    "params": {},
    "completions": ["<s>7</s>", "<s>4</s>"],
}
LINE |= {"pair_id": [1, 1], "side": [0, 1], "preferred_side": [0, 0]}


def command(path: str) -> int:
    parser = ArgumentParser()
    add_arguments(parser)
    return main(parser.parse_args(["--batches", path]))


def test_one_array_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    text = json.dumps(LINE) + "\n\n" + json.dumps({**LINE, "params": {"BT_REWARD_POS": 3}}) + "\n"
    (tmp_path / "f.jsonl").write_text(text)
    assert command(str(tmp_path / "f.jsonl")) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert command("-") == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [[1.0, 1.0], [3.0, 3.0]] * 2


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "not JSON"),
        ("[]", "expected a JSON object"),
        (json.dumps({"reward": "bt_hard_margin"}), "missing: parser, completions, pair_id, side, preferred_side"),
        (json.dumps({**LINE, "reward": "bt_hard_margi"}), "did you mean bt_hard_margin?"),
        (json.dumps({**LINE, "params": {"BT_DELTA_TEMPP": 1}}), "BT_DELTA_TEMPP: no such field"),
        (json.dumps({**LINE, "params": [1]}), "params: an object"),
        (json.dumps({**LINE, "side": [0, 5]}), "side: 0 or 1 is valid, got 5 for pair_id 1"),
        (json.dumps({**LINE, "side": [0]}), "columns of different lengths"),
        (json.dumps({**LINE, "side": 0}), "side: a list is valid"),
        (json.dumps({**LINE, "completions": [1, 2]}), "completions: a list of texts"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, bad: str, message: str):
    path = tmp_path / "f.jsonl"
    path.write_text(json.dumps(LINE) + "\n" + bad + "\n")
    with pytest.raises(ConfigError) as error:
        command(str(path))
    assert str(error.value).startswith(f"{path}:2: ")
    assert message in str(error.value)


def test_a_missing_file_is_named():
    with pytest.raises(ConfigError, match=r"nowhere\.jsonl: no such file"):
        command("nowhere.jsonl")


def test_parity_penalises_lone_sides_as_published():
    line = {**LINE, "reward": "bt_pointwise_baseline", "pair_id": [1, 2]}
    assert batch_rewards(json.dumps(line)) == [-1.0, -1.0]
