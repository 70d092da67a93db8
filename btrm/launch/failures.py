"""Why an attempt failed, and what will be or can be done about it."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from btrm.config import ConfigError
from btrm.leases import Fenced
from btrm.teacher.base import HaltedError

Action = Literal["requeue", "retry", "halve", "stop", "none"]


@dataclass(frozen=True, slots=True)
class Failure:
    """A class of failures, and by what it is known: Slurm's word for the job's end, or a text in its log.

    `action`: put back at once; again after a pause; again with half the batch; not again; nothing, since another
    attempt is at it. `own_fault` says whether it says something about the job itself, so that two without progress
    are enough. The first class of the table that fits is the one.
    """

    name: str
    action: Action
    advice: str
    exclude_node: bool = False
    own_fault: bool = True
    states: tuple[str, ...] = ()
    text: str = ""


_TABLE = (
    Failure("fenced", "none", "a newer attempt of the same job has taken over; nothing to do", own_fault=False),
    Failure("bad_request", "stop", "the request was wrong: mend what the log names, submit again", own_fault=True),
    Failure(
        "teacher_halted",
        "stop",
        "mend the key, the quota or the budget that the log names, then `btrm retry RUN`: it goes on from there",
        own_fault=False,
    ),
    Failure(
        "image_changed",
        "stop",
        "the image is not the one that was submitted with: put that back and `btrm retry RUN`, or submit anew",
        text=r"^btrm: image_changed: ",
    ),
    Failure(
        "image_unfit",
        "stop",
        "btrm's code, or a package that it needs, is not there: bind the run, or build the image anew; submit again",
        text=r"^btrm: image_unfit: |No module named '?btrm\b",
    ),
    Failure(
        "no_progress",
        "stop",
        "two attempts in a row got nowhere: read `btrm logs RUN`, mend the cause, then `btrm retry RUN`",
    ),
    Failure(
        "node_failure",
        "requeue",
        "starts again on another node, this one is left out for a while",
        exclude_node=True,
        own_fault=False,
        states=("NODE_FAIL", "BOOT_FAIL"),
        text=r"DUE TO NODE FAILURE",
    ),
    Failure(
        "preempted",
        "requeue",
        "starts again when the cluster has room, from where it was",
        own_fault=False,
        states=("PREEMPTED",),
        text=r"DUE TO PREEMPTION",
    ),
    Failure(
        "timeout",
        "requeue",
        "starts again from where it was; more time at once: --time",
        states=("TIMEOUT", "DEADLINE"),
        text=r"DUE TO TIME LIMIT",
    ),
    Failure(
        "cuda_out_of_memory",
        "halve",
        "runs again with half the batch where the stage allows it; else more GPUs or a shorter max_length",
        text=r"CUDA out of memory|CUDA error: out of memory|OutOfMemoryError: CUDA|CUBLAS_STATUS_ALLOC_FAILED"
        r"|No available memory for the cache blocks|Free memory on device \S+ .{0,80}less than",
    ),
    Failure(
        "out_of_memory",
        "retry",
        "runs again once or twice; if it comes back, ask for more memory: --mem-gb",
        states=("OUT_OF_MEMORY",),
        text=r"oom[_-]kill event|cgroup out-of-memory handler|task \d+.{0,20}: Out Of Memory|Exceeded job memory limit"
        r"|DefaultCPUAllocator: can't allocate memory|Cannot allocate memory|^MemoryError\b|numpy\S*MemoryError",
    ),
    Failure(
        "quota",
        "retry",
        "runs again after a pause; make room (`btrm gc RUN`, `quota`), else it stops",
        own_fault=False,
        text=r"No space left on device|Disk quota exceeded",
    ),
    Failure(
        "offline_hub",
        "stop",
        "no internet there, and the file is not in the cache: `btrm prefetch` on the login node, then `btrm retry RUN`",
        text=r"OfflineModeIsEnabled|offline mode is enabled|LocalEntryNotFoundError|IncompleteSnapshotError"
        r"|outgoing traffic has been disabled|Couldn't reach .{1,80} on the Hub|Couldn't reach the Hugging Face Hub"
        r"|We couldn't connect to '?https://huggingface\.co",
    ),
    Failure(
        "port_clash",
        "retry",
        "runs again on another port",
        own_fault=False,
        text=r"EADDRINUSE|[Aa]ddress already in use|server socket has failed to listen on any local network address",
    ),
    Failure(
        "cuda_error",
        "retry",
        "runs again on another node, this one is left out for a while",
        exclude_node=True,
        text=r"CUDA error: (?!device-side assert)|NVIDIA driver on your system|No CUDA GPUs are available"
        r"|nvidia-smi has failed|CUDA driver initialization failed|Unexpected error from cudaGetDeviceCount",
    ),
    Failure(
        "nccl",
        "retry",
        "runs again after a pause; for the cause set NCCL_DEBUG=INFO in the site's env",
        text=r"NCCL error|Watchdog caught collective operation timeout|ncclSystemError|ncclRemoteError"
        r"|ncclInternalError|ncclUnhandledCudaError|NCCL communicator was aborted|DistBackendError",
    ),
    Failure(
        "cancelled",
        "retry",
        "is sent again; to end a run: `btrm cancel RUN`",
        own_fault=False,
        states=("CANCELLED", "REVOKED"),
        text=r"(?:JOB|STEP) \S+ ON \S+ CANCELLED AT",
    ),
    Failure(
        "killed",
        "retry",
        "something ended it with kill -9; runs again. If it comes back, memory may be short: --mem-gb",
        own_fault=False,
    ),
    Failure("error", "retry", "runs again; stops when it gets nowhere twice: read `btrm logs RUN`"),
)
FAILURES = {failure.name: failure for failure in _TABLE}
_KILLED = {137, -9}
_FULL = {errno.ENOSPC, errno.EDQUOT}


def classify(log_tail: str, code: int | None, slurm_state: str | None, error: BaseException | None = None) -> Failure:
    """Return the class of a failure, by the surest witness first: the exception, Slurm's word, the log, the exit code.

    A scancel that follows another cause (a rank died, so the step was cancelled) does not hide that cause.
    """
    state = (slurm_state or "").split(" ")[0].rstrip("+")
    named = _by_error(error) or next((f.name for f in _TABLE if state in f.states and f.name != "cancelled"), None)
    if named is not None:
        return FAILURES[named]
    text = "\n".join([log_tail, *(_told(part) for part in _chain(error))])
    for failure in _TABLE:
        if failure.text and re.search(failure.text, text, re.MULTILINE):
            return failure
    if state in FAILURES["cancelled"].states:
        return FAILURES["cancelled"]
    return FAILURES["killed" if code in _KILLED else "error"]


def _by_error(error: BaseException | None) -> str | None:
    """Return the class that an exception's type alone decides."""
    for part in _chain(error):
        if isinstance(part, Fenced):
            return "fenced"
        if isinstance(part, OSError) and part.errno in _FULL:
            return "quota"
        if isinstance(part, MemoryError):
            return "out_of_memory"
        if isinstance(part, HaltedError):
            return "teacher_halted"
    return "bad_request" if isinstance(error, ConfigError) else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and those that it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _told(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}: {error}"
