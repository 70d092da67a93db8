"""Real trainers on two nodes of two processes each: asked to stop, killed, and resumed to the same step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from trainer_support import HERE, TINY, request_of, write_rows, write_sft

from btrm.checkpoints import checkpoints, is_whole, read_mark, step_of
from btrm.runs import Resources, read_manifest
from btrm.train.node import free_port
from btrm.train.rank import read_steps

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("need_swift")]
SFT: dict[str, Any] = {**TINY, "per_device_batch_size": 1, "gradient_accumulation": 1, "cpu_processes": 2}
GRPO: dict[str, Any] = {
    **TINY,
    "reward": {"name": f"{HERE / 'pair_reward.py'}:varied"},
    "num_generations": 2,
    "generation_batch_size": 16,
    "per_device_batch_size": 4,
    "max_completion_length": 4,
    "dynamic_sample": False,
    "cpu_processes": 2,
}
WAIT_S = 270


class Job:
    """A job of two nodes, as often as Slurm starts it: always the same port."""

    def __init__(self, request: Path) -> None:
        self.request = request
        self.port = free_port()
        self.starts = 0
        self.nodes: list[subprocess.Popen[bytes]] = []

    @property
    def directory(self) -> Path:
        return self.request.parent

    def start(self) -> None:
        shared = {
            "BTRM_OWNER": "job 7",
            "SLURM_JOB_ID": "7",
            "SLURM_RESTART_COUNT": str(self.starts),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.port),
        }
        command = [sys.executable, str(HERE / "one_node.py"), str(self.request)]
        self.starts += 1
        self.nodes = [
            subprocess.Popen(command, env={**os.environ, **shared, "NODE_RANK": str(node)}) for node in range(2)
        ]

    def wait(self) -> list[int]:
        return [node.wait(WAIT_S) for node in self.nodes]

    def after(self, step: int) -> int:
        """Wait until so many steps are done; return how many are."""
        deadline = time.monotonic() + WAIT_S
        while (done := (read_steps(self.directory) or (0, None))[0]) < step:
            assert self.nodes[0].poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        return done

    def checkpoints(self) -> list[int]:
        found = checkpoints(self.directory / "checkpoints")
        assert all(is_whole(path) for path in found)
        return [step_of(path) for path in found]


@pytest.fixture
def jobs() -> Generator[list[Job]]:
    started: list[Job] = []
    yield started
    for node in (node for job in started for node in job.nodes):
        node.kill()
        node.wait()


def rank_pid(node: subprocess.Popen[bytes]) -> int:
    children = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()
    return int(children[-1])


def logged_steps(directory: Path) -> list[int]:
    lines = [json.loads(line) for line in (directory / "checkpoints" / "logging.jsonl").read_text().splitlines()]
    return [int(line["global_step/max_steps"].split("/")[0]) for line in lines if "learning_rate" in line]


def test_sft_asked_to_stop_loses_at_most_a_step(tmp_path: Path, tiny_model: Path, jobs: list[Job]) -> None:
    data = write_sft(tmp_path / "sft.jsonl", 64)
    values = {**SFT, "model": str(tiny_model), "data": str(data), "max_steps": 24, "save_steps": 1000}
    values |= {"logging_steps": 1}
    job = Job(request_of("sft", tmp_path / "run", resources=Resources(nodes=2), **values))
    jobs.append(job)
    job.start()
    asked = job.after(3)
    for node in job.nodes:
        node.send_signal(signal.SIGURG)  # as Slurm does: all tasks of the step
    told = job.after(3)
    assert job.wait() == [75, 0]
    (saved,) = job.checkpoints()
    assert asked <= saved <= told + 8, "a step or two pass while the request is read"
    mark = read_mark(job.directory / "checkpoints" / f"checkpoint-{saved}")
    assert mark is not None and {f"rng_state_{rank}.pth" for rank in range(4)} <= set(mark["files"])

    job.start()
    assert job.wait() == [0, 0]
    assert job.checkpoints() == [saved, 24] and read_steps(job.directory) == (24, 24)
    assert logged_steps(job.directory) == list(range(1, 25)), "none lost, none twice"
    manifest = read_manifest(job.directory)
    assert manifest is not None and manifest.results["step"] == 24


def test_grpo_killed_on_one_node_resumes_on_both(tmp_path: Path, tiny_model: Path, jobs: list[Job]) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", 9)
    values = {**GRPO, "model": str(tiny_model), "rows": str(rows), "max_steps": 12, "save_steps": 2, "logging_steps": 1}
    job = Job(request_of("grpo", tmp_path / "run", resources=Resources(nodes=2), **values))
    jobs.append(job)
    job.start()
    killed = job.after(3)
    os.kill(rank_pid(job.nodes[1]), signal.SIGKILL)
    assert job.wait() == [1, 0], "node 0 tells how it ended"
    assert "trainer-node1.log" in {path.name for path in (job.directory / "logs").iterdir()}
    resumed = job.checkpoints()[-1]
    assert resumed >= killed - 2, "no more than save_steps are lost"

    job.start()
    assert job.wait() == [0, 0]
    assert job.checkpoints() == list(range(2, 13, 2))
    assert logged_steps(job.directory) == list(range(1, 13))
    order = json.loads((job.directory / "trainer.json").read_text())
    assert order["world_size"] == 4 and f"checkpoint-{resumed}" in " ".join(order["argv"])
