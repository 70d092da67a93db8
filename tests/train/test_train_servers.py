"""vLLM on nodes of its own, with stand-ins: the gate before the trainers, who trains and who serves, what fails."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from trainer_support import FOLLOW, HERE, stage_run

from btrm import stopping
from btrm.config import ConfigError
from btrm.leases import claim, holding
from btrm.publishing import write_json
from btrm.runs import Resources
from btrm.stopping import Stopped
from btrm.train import launch
from btrm.train import servers as gate
from btrm.train.grpo import GrpoConfig, batch_plan, check_grpo_settings, grpo_options
from btrm.train.launch import Job, JobError, run_job, serving
from btrm.train.options import world_size
from btrm.train.rank import read_steps
from btrm.train.serve import server_options
from btrm.train.servers import ServerError
from btrm.train.swift_options import GRPO_OWNED

ENDS_S = 120  # within which another node ends, on a busy machine
SERVER: dict[str, Any] = {"use_vllm": True, "vllm_mode": "server", "vllm_tensor_parallel": 2}


@pytest.fixture
def server_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[subprocess.Popen[bytes]]:
    """The second of two nodes, as a process that follows node 0; this one is node 0."""
    values = {"PYTHONPATH": str(HERE), "SLURM_JOB_ID": "7", "NODE_RANK": "0", "SLURMD_NODENAME": "127.0.0.1"}
    values |= {"http_proxy": "http://127.0.0.1:9", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(gate, "_ASK_S", 0.2)
    monkeypatch.setattr(launch, "_SLOW_S", 0.2)
    stopping.forget()
    command = [sys.executable, "-c", FOLLOW, str(tmp_path)]
    node = subprocess.Popen(command, env={**os.environ, "NODE_RANK": "1"})
    with holding(claim(tmp_path, "job 7")):
        yield node
    stopping.forget()
    node.kill()
    node.wait()


def server_job(directory: Path, ready_s: float, end_s: float | None = None, code: int = 0) -> Job:
    write_json(directory / "server.json", {"ready_s": ready_s, "end_s": end_s, "code": code})
    log = directory / "logs" / "server.log"
    return Job("stand_in_server", directory / "server.json", 1, True, log, None)


def trainer_job(directory: Path, steps: int) -> Job:
    write_json(directory / "trainer.json", {"steps": steps})
    log = directory / "logs" / "trainer.log"
    return Job("stand_in_rank", directory / "trainer.json", 1, True, log, steps, servers=1)


def test_trainers_start_when_the_server_answers_and_end_with_it(
    tmp_path: Path, server_node: subprocess.Popen[bytes]
) -> None:
    with serving(server_job(tmp_path, 0.5), range(1, 2)) as (server,):
        assert server.host == "127.0.0.1" and "127.0.0.1" in os.environ["no_proxy"]
        run_job(trainer_job(tmp_path, 3), Resources(nodes=2))
    assert "no_proxy" not in os.environ
    assert server_node.wait(ENDS_S) == 0 and read_steps(tmp_path) == (3, 3)


@pytest.mark.parametrize("code", [0, 3])
def test_a_server_that_ends_before_it_answers(code: int, tmp_path: Path, server_node: subprocess.Popen[bytes]) -> None:
    job = server_job(tmp_path, 60, end_s=0.1, code=code)
    message = rf"node 1 ended with {code or 1}; .*server-node1\.log"
    with pytest.raises(ServerError, match=message) as error, serving(job, range(1, 2)):
        pytest.fail("no trainer may start")
    assert "No available memory" in str(error.value)
    assert server_node.wait(ENDS_S) == 0


def test_a_server_that_ends_while_the_others_train(tmp_path: Path, server_node: subprocess.Popen[bytes]) -> None:
    job = server_job(tmp_path, 0, end_s=1, code=3)
    message = r"server-node1\.log ends in:\n.*No available memory"
    with pytest.raises(JobError, match=message), serving(job, range(1, 2)):
        run_job(trainer_job(tmp_path, 10_000), Resources(nodes=2))
    assert server_node.wait(ENDS_S) == 0


def test_a_server_that_never_answers(
    tmp_path: Path, server_node: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate.wait_ready, "__defaults__", (1.0,))
    message = r"no answer within 1 s from the vLLM server of node 1 \(http://127\.0\.0\.1:\d+/health/\)"
    with pytest.raises(ServerError, match=message), serving(server_job(tmp_path, 60), range(1, 2)):
        pytest.fail("no trainer may start")
    assert server_node.wait(ENDS_S) == 0


def test_asked_to_stop_while_the_server_loads(tmp_path: Path, server_node: subprocess.Popen[bytes]) -> None:
    stopping.ask_to_stop("preempted")
    with pytest.raises(Stopped, match="preempted"), serving(server_job(tmp_path, 60), range(1, 2)):
        pytest.fail("no trainer may start")
    assert server_node.wait(ENDS_S) == 0


def on_nodes(tmp_path: Path, nodes: int, gpus: int = 8) -> Any:
    return replace(stage_run(tmp_path, "grpo"), resources=Resources(nodes=nodes, gpus=gpus))


def test_what_trainers_and_servers_are_told(tmp_path: Path) -> None:
    config = GrpoConfig.build({**SERVER, "model": "some/model", "vllm_server_nodes": 2, "generation_batch_size": 256})
    run = on_nodes(tmp_path, 4)
    check_grpo_settings(config, run)
    assert world_size(config, run) == 16, "two nodes of four train"
    told = grpo_options(config, run, tmp_path / "rows.jsonl", batch_plan(config, 8))
    assert {key: told[key] for key in told if "vllm" in key} == {"use_vllm": True, "vllm_mode": "server"}
    assert server_options(config, run) == {
        "model": "some/model",
        "use_hf": True,
        "torch_dtype": "bfloat16",
        "host": "0.0.0.0",
        "vllm_tensor_parallel_size": 2,
        "vllm_data_parallel_size": 4,
        "vllm_gpu_memory_utilization": 0.9,
        "vllm_max_model_len": 4096 + 128,
    }
    assert {"vllm_server_host", "vllm_server_port"} <= set(GRPO_OWNED)


def test_vllm_beside_the_trainer(tmp_path: Path) -> None:
    config = GrpoConfig.build({"use_vllm": True, "vllm_gpu_memory_utilization": 0.4, "generation_batch_size": 256})
    told = grpo_options(config, on_nodes(tmp_path, 2), tmp_path / "rows.jsonl", batch_plan(config, 16))
    assert {key: told[key] for key in told if "vllm" in key} == {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_tensor_parallel_size": 1,
        "vllm_gpu_memory_utilization": 0.4,
    }
    assert world_size(config, on_nodes(tmp_path, 2)) == 16


@pytest.mark.parametrize(
    ("values", "nodes", "gpus", "message"),
    [
        ({"vllm_mode": "server"}, 2, 8, "vllm_mode=server: needs use_vllm"),
        (SERVER, 1, 8, r"vllm_server_nodes=1: of 1 node\(s\) none is left to train"),
        (SERVER, 2, 0, "vllm_mode=server: needs GPUs"),
        ({**SERVER, "vllm_tensor_parallel": 3}, 2, 8, "vllm_tensor_parallel=3: must divide the 8 GPUs"),
    ],
)
def test_what_cannot_be_served_is_refused(
    values: dict[str, Any], nodes: int, gpus: int, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_grpo_settings(GrpoConfig.build(values), on_nodes(tmp_path, nodes, gpus))
