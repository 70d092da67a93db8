"""A patched ms-swift by itself: its own command line trains on whole pairs, without anything of btrm."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from trainer_support import HERE, write_rows

pytestmark = [pytest.mark.slow]
FLOOR = 2.0


def test_its_own_command_line_trains_on_pairs(
    ms_swifts: dict[str, Path], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 8)
    options = {
        "rlhf_type": "grpo",
        "pair_sampler": "true",
        "min_reward_std": FLOOR,
        "dynamic_sample": "true",
        "model": tiny_model,
        "model_type": "qwen2",
        "template": "chatml",
        "check_model": "false",
        "use_hf": "true",
        "use_cpu": "true",
        "tuner_type": "lora",
        "torch_dtype": "float32",
        "dataset": rows,
        "split_dataset_ratio": 0,
        "external_plugins": HERE / "plugin_reward.py",
        "reward_funcs": "whole_pairs",
        "num_generations": 2,
        "generation_batch_size": 16,
        "per_device_train_batch_size": 8,
        "max_completion_length": 4,
        "max_steps": 4,
        "logging_steps": 1,
        "log_completions": "true",
        "report_to": "none",
        "add_version": "false",
        "output_dir": tmp_path / "out",
    }
    monkeypatch.setenv("PYTHONPATH", str(ms_swifts["patched"]))
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    done = subprocess.run([sys.executable, "-m", "swift.cli.rlhf", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in (tmp_path / "out" / "logging.jsonl").read_text().splitlines()]
    assert sum("loss" in line for line in lines) == 4
    (told,) = (tmp_path / "out").glob("completions.jsonl")
    values = {round(abs(a), 5) for line in told.read_text().splitlines() for a in json.loads(line)["advantages"]}
    assert values == {round(0.5 / (FLOOR + 1e-4), 5)}
