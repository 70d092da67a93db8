"""The real trainers, end to end on a tiny model: sft, merge, grpo; killed, resumed, extended, refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trainer_support import HERE, KIND, TINY, request_of, write_rows, write_sft

from btrm.checkpoints import is_whole, read_mark
from btrm.config import ConfigError
from btrm.runs import RunManifest, verify
from btrm.stages import execute

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("need_swift")]
REWARD = {"name": f"{HERE / 'pair_reward.py'}:varied"}
GRPO: dict[str, Any] = {
    **TINY,
    "reward": REWARD,
    "num_generations": 2,
    "generation_batch_size": 8,
    "per_device_batch_size": 8,
    "max_completion_length": 4,
    "dynamic_sample": False,
    "logging_steps": 1,
    "save_steps": 2,
    "learning_rate": 1e-3,
}
RunStage = Callable[..., RunManifest]


def tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def test_sft_merge_grpo_and_what_they_refuse(tmp_path: Path, tiny_model: Path, run_stage: RunStage) -> None:
    import torch

    rows, sft = write_rows(tmp_path / "rows.jsonl", 6), write_sft(tmp_path / "sft.jsonl", 24)
    base = {"model": str(tiny_model)}
    done = run_stage(
        "sft", **base, **TINY, data=str(sft), max_steps=3, per_device_batch_size=4, gradient_accumulation=1
    )
    assert done.results["step"] == 3
    adapter = tmp_path / "run" / "sft" / "adapter"
    assert not list(adapter.glob("optimizer*")) and is_whole(adapter)
    assert any(tensor.abs().sum() > 0 for name, tensor in tensors(adapter).items() if "lora_B" in name)

    run_stage("merge", **base, **KIND, adapter="@sft/adapter")
    merged, plain = tensors(tmp_path / "run" / "merge" / "model"), tensors(tiny_model)
    assert merged.keys() == plain.keys()
    assert any(not torch.equal(merged[name], plain[name]) for name in plain), "the adapter is in the weights"
    assert torch.allclose(merged["model.embed_tokens.weight"], plain["model.embed_tokens.weight"])

    run_stage("grpo", model="@merge/model", rows=str(rows), **GRPO, max_steps=3, cpu_processes=1)
    checkpoints = tmp_path / "run" / "grpo" / "checkpoints"
    assert {p.name for p in checkpoints.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-3"}
    logged = [json.loads(line) for line in (checkpoints / "logging.jsonl").read_text().splitlines()]
    steps = [line for line in logged if "learning_rate" in line]
    assert len(steps) == 3
    assert {"frac_unparsed", "frac_correct", "tie_rate", "reward_unparsed"} <= set(steps[0])
    assert verify(tmp_path / "run") == []

    # an adapter of the merged model is none of the tiny model's
    mark = read_mark(checkpoints / "checkpoint-3")
    assert mark is not None and mark["step"] == 3
    with pytest.raises(ConfigError, match="an adapter for another base"):
        run_stage("merge", "merge2", **base, **KIND, adapter=str(checkpoints / "checkpoint-3"))
    shutil.copytree(adapter, tmp_path / "empty")
    (tmp_path / "empty" / "adapter_model.safetensors").unlink()
    with pytest.raises(ConfigError, match="neither weights"):
        run_stage("merge", "merge3", **base, **KIND, adapter=str(tmp_path / "empty"))


def children_of(marker: str) -> list[int]:
    """Return the processes whose command line holds `marker`."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if marker.encode() in line and b"btrm.train" in line:
            found.append(int(path.parent.name))
    return found


def test_killed_in_the_middle_it_resumes_and_leaves_no_orphan(tmp_path: Path, tiny_model: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 10)  # 5 steps an epoch
    values = {**GRPO, "model": str(tiny_model), "rows": str(rows), "max_steps": 30, "cpu_processes": 1}
    request = request_of("grpo", tmp_path / "run", **values)
    folder = request.parent / "checkpoints"
    stage = subprocess.Popen([sys.executable, "-m", "btrm.stages", str(request)])
    deadline = time.monotonic() + 240
    while not (folder / "checkpoint-6" / "btrm.json").exists():
        assert stage.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(stage.pid, signal.SIGKILL)
    stage.wait()
    deadline = time.monotonic() + 60
    while children_of(str(request.parent / "trainer.json")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    newest = max(folder.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))
    (newest / "optimizer.pt").write_bytes(b"")  # as if the kill had come while it was written
    before = {p.name for p in folder.glob("checkpoint-*")} - {newest.name}

    manifest = execute(request)
    assert manifest.results["steps"] == 30
    assert {f"checkpoint-{n}" for n in range(2, 31, 2)} == {p.name for p in folder.glob("checkpoint-*")}
    assert all(is_whole(p) for p in folder.glob("checkpoint-*")) and before
    resumed = json.loads((request.parent / "trainer.json").read_text())["argv"]
    assert Path(resumed[resumed.index("--resume_from_checkpoint") + 1]).name in before
    state = json.loads((folder / "checkpoint-30" / "trainer_state.json").read_text())
    assert [entry["step"] for entry in state["log_history"] if "learning_rate" in entry] == list(range(1, 31))

    # more steps extend the same run, with checkpoints as close as is asked for now
    further = request_of("grpo", tmp_path / "run", **{**values, "max_steps": 32, "save_steps": 1})
    assert execute(further).results["steps"] == 32
    assert is_whole(folder / "checkpoint-31") and is_whole(folder / "checkpoint-32")


def test_a_resumed_run_is_the_run_that_was_not_stopped(tmp_path: Path, tiny_model: Path) -> None:
    import torch

    rows = write_rows(tmp_path / "rows.jsonl", 9)
    values = {**GRPO, "model": str(tiny_model), "rows": str(rows), "cpu_processes": 2, "per_device_batch_size": 4}
    values |= {"lr_scheduler": "constant", "warmup_ratio": 0}
    execute(request_of("grpo", tmp_path / "whole", **values, max_steps=6))
    execute(request_of("grpo", tmp_path / "parts", **values, max_steps=4))
    execute(request_of("grpo", tmp_path / "parts", **values, max_steps=6))
    whole, parts = (tensors(tmp_path / name / "grpo" / "checkpoints" / "checkpoint-6") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    for name, tensor in whole.items():
        assert torch.allclose(tensor, parts[name], atol=1e-6), name
