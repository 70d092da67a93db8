"""Trainer processes: started by a stage, ended with it, whatever ends it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from btrm.config import ConfigError
from btrm.progress import progress
from btrm.runs import Resources, StageError, write_json

_PR_SET_PDEATHSIG = 1
_LOG_TAIL = 30
_POLL_S = 0.2


class JobError(StageError):
    """A trainer process that ended with an error; the message ends in the tail of its log."""

    def __init__(self, module: str, code: int, log: Path) -> None:
        tail = log.read_text(errors="replace").splitlines()[-_LOG_TAIL:]
        super().__init__(f"{module} ended with {code}; {log} ends in:\n" + "\n".join(tail))
        self.module, self.code = module, code


@dataclass(frozen=True, slots=True)
class Job:
    """One trainer run: our own module as the entry point of every process, and the request that it reads."""

    module: str
    request: Path
    processes: int
    cpu: bool
    log: Path
    steps: int | None


def process_count(resources: Resources, cpu_processes: int) -> int:
    """Return the processes a node: one a GPU, or as many as asked for on a CPU."""
    return resources.gpus if resources.gpus > 0 else cpu_processes


def command(job: Job, resources: Resources) -> list[str]:
    """Return the command of one node. Several nodes meet at MASTER_ADDR and MASTER_PORT, as the launcher set them."""
    entry = ["-m", job.module, str(job.request)]
    if job.processes == 1 and resources.nodes == 1:
        return [sys.executable, *entry]
    where = ["--standalone"]
    if resources.nodes > 1:
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if name not in os.environ]
        if missing:
            raise ConfigError(f"nodes={resources.nodes}: the launcher must set {', '.join(missing)} on each node")
        where = [
            f"--nnodes={resources.nodes}",
            f"--node-rank={os.environ['NODE_RANK']}",
            f"--master-addr={os.environ['MASTER_ADDR']}",
            f"--master-port={os.environ['MASTER_PORT']}",
        ]
    return [sys.executable, "-m", "btrm.train.launch", *where, f"--nproc-per-node={job.processes}", *entry]


def run_job(job: Job, resources: Resources) -> None:
    """Run the trainer to its end, showing its steps; raise JobError with the log's tail where it fails."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    steps_file(job.request.parent).unlink(missing_ok=True)
    with job.log.open("ab") as log:
        child = subprocess.Popen(
            command(job, resources),
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment(job, os.environ),
            start_new_session=True,
        )
        try:
            for _ in progress(_steps(child, job), job.steps, job.request.parent.name, "step"):
                pass
            code = child.wait()
        finally:
            _end(child)
    if code != 0:
        raise JobError(job.module, code, job.log)


def environment(job: Job, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the child's environment: hub by Hugging Face, one thread a CPU process, our parent's id."""
    env = {**environ, "USE_HF": "1", "PYTHONUNBUFFERED": "1", "BTRM_PARENT": str(os.getpid())}
    if job.cpu:
        env["OMP_NUM_THREADS"] = environ.get("OMP_NUM_THREADS") or "1"
        env["CUDA_VISIBLE_DEVICES"] = ""
        env["VLLM_PLUGINS"] = ""  # ms-swift's vLLM plug-in needs torchvision, which the CPU build has not
    return env


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies, so that kill -9 of a stage leaves no trainer behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    stage = os.environ.get("BTRM_PARENT")
    if "RANK" not in os.environ and stage is not None and os.getppid() != int(stage):
        sys.exit("the stage that started this trainer is gone")  # it died before the kernel was asked


def steps_file(directory: Path) -> Path:
    """Return where a trainer says how many steps it has done."""
    return directory / ".steps.json"


def report_step(directory: Path, step: int) -> None:
    """Say how many steps are done; called by the trainer's first process."""
    write_json(steps_file(directory), step)


def _steps(child: subprocess.Popen[bytes], job: Job) -> Iterator[int]:
    """Yield once for each step that is done, until the child ends."""
    done = 0
    while True:
        ended = child.poll() is not None
        path = steps_file(job.request.parent)
        now = int(path.read_text()) if path.exists() else 0
        yield from range(done, now)
        done = max(done, now)
        if ended:
            return
        time.sleep(_POLL_S)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End what is left of the child's session."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


if __name__ == "__main__":
    die_with_parent()
    from torch.distributed.run import main

    main(sys.argv[1:])
