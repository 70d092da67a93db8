"""One trainer run: what is started, with how many processes, in which environment, and how its failure is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from btrm.runs import Resources, StageError

_LOG_TAIL = 30


class JobError(StageError):
    """A trainer process that ended with an error; the message ends in the tails of its node's log and of `others`."""

    def __init__(self, module: str, code: int, log: Path, others: Sequence[Path] = ()) -> None:
        self.module, self.code, self.logs = module, code, (log, *others)
        super().__init__("; ".join([f"{module} ended with {code}", *(log_tail(path) for path in self.logs)]))


def log_tail(log: Path) -> str:
    """Return what a log ends in, with its name."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join([f"{log} ends in:", *lines[-_LOG_TAIL:]])


@dataclass(frozen=True, slots=True)
class Job:
    """One trainer run: our own module as the entry point of every process, and the request that it reads.

    `processes` are a node's; `done` steps are on disk already; the last `servers` nodes do not train.
    """

    module: str
    request: Path
    processes: int
    cpu: bool
    log: Path
    steps: int | None
    done: int = 0
    servers: int = 0

    @property
    def directory(self) -> Path:
        """The stage's directory."""
        return self.request.parent


def process_count(resources: Resources, cpu_processes: int) -> int:
    """Return the processes a node: one a GPU, or as many as asked for on a CPU."""
    return resources.gpus if resources.gpus > 0 else cpu_processes


def environment(job: Job, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the children's environment: hub by Hugging Face, one thread a process unless told otherwise."""
    env = {**environ, "USE_HF": "1", "PYTHONUNBUFFERED": "1"}
    if job.cpu or job.processes > 1:
        env["OMP_NUM_THREADS"] = environ.get("OMP_NUM_THREADS") or "1"
    if job.cpu:
        env["CUDA_VISIBLE_DEVICES"] = ""
        env["VLLM_PLUGINS"] = ""  # ms-swift's vLLM plug-in needs torchvision, which the CPU build has not
    return env
