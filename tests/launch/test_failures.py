"""Texts as the programs themselves print them: PyTorch, NCCL, vLLM, Slurm, the hub's client, the operating system."""

from __future__ import annotations

import errno
import os

import pytest

from btrm.config import ConfigError
from btrm.launch.failures import FAILURES, classify
from btrm.leases import Fenced
from btrm.teacher.base import HaltedError

LOGS = {
    "cuda_out_of_memory": (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 146.00 MiB. GPU 0 has a total capacity of 8.00 "
        "GiB of which 0 bytes is free.",
        "RuntimeError: CUDA error: out of memory",
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`",
        "ValueError: Free memory on device cuda:0 (3.1/79.2 GiB) on startup is less than desired GPU memory "
        "utilization",
        # one rank runs out, NCCL and Slurm then complain on all of them
        "[rank1]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"
        "[rank0]: torch.distributed.DistBackendError: NCCL communicator was aborted on rank 0.\n"
        "slurmstepd: error: *** STEP 12.0 ON n1 CANCELLED AT 2026-01-01T00:00:00 ***",
    ),
    "out_of_memory": (
        "slurmstepd: error: Detected 1 oom_kill event in StepId=17020.18. Some of the step tasks have been OOM Killed.",
        "slurmstepd: error: Detected 3 oom-kill event(s) in StepId=8.0. Some of your processes may have been killed by "
        "the cgroup out-of-memory handler.",
        "srun: error: gpu003: task 1: Out Of Memory",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you "
        "tried to allocate 800000000000 bytes. Error code 12 (Cannot allocate memory)",
        "OSError: [Errno 12] Cannot allocate memory",
        "Traceback (most recent call last):\nMemoryError",
    ),
    "nccl": (
        "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=1, OpType=BROADCAST, NumelIn=131072000,"
        " NumelOut=131072000, Timeout(ms)=600000) ran for 600081 milliseconds before timing out.",
        "torch.distributed.DistBackendError: NCCL error in: ../torch/csrc/distributed/c10d/NCCLUtils.hpp:317, unhandled"
        " system error (run with NCCL_DEBUG=INFO for details), NCCL version 2.21.5\nncclSystemError: System call",
        "RuntimeError: NCCL error: unhandled system error",
    ),
    "cuda_error": (
        "torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered",
        "RuntimeError: CUDA error: an illegal memory access was encountered",
        "RuntimeError: No CUDA GPUs are available",
        "RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before",
    ),
    "quota": (
        "OSError: [Errno 28] No space left on device: '/scratch/x'",
        "OSError: [Errno 122] Disk quota exceeded",
    ),
    "offline_hub": (
        "huggingface_hub.errors.OfflineModeIsEnabled: Cannot reach https://huggingface.co/api/models/x: offline mode "
        "is enabled. To disable it, please unset the `HF_HUB_OFFLINE` environment variable.",
        "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find the requested files in the disk cache and "
        "outgoing traffic has been disabled.",
        "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the "
        "cached files.",
        "ConnectionError: Couldn't reach 'Anthropic/hh-rlhf' on the Hub (OfflineModeIsEnabled)",
    ),
    "port_clash": (
        "torch.distributed.DistNetworkError: The server socket has failed to listen on any local network address. "
        "port: 29500, useIpv6: false, code: -98, name: EADDRINUSE, message: address already in use",
        "OSError: [Errno 98] Address already in use",
    ),
    "timeout": ("slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO TIME LIMIT ***",),
    "preempted": ("slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO PREEMPTION ***",),
    "node_failure": (
        "slurmstepd: error: *** STEP 7.0 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO NODE FAILURE, SEE SLURMCTLD LOG "
        "FOR DETAILS ***",
    ),
    "cancelled": ("slurmstepd: error: *** STEP 7.0 ON n1 CANCELLED AT 2026-01-01T00:00:00 ***",),
    "error": (
        "ValueError: something of our own",
        "RuntimeError: CUDA error: device-side assert triggered",
        "Segmentation fault (core dumped)",
    ),
}
STATES = {
    "TIMEOUT": "timeout",
    "DEADLINE": "timeout",
    "PREEMPTED": "preempted",
    "NODE_FAIL": "node_failure",
    "BOOT_FAIL": "node_failure",
    "OUT_OF_MEMORY": "out_of_memory",
    "CANCELLED by 1000": "cancelled",
    "CANCELLED+": "cancelled",
    "FAILED": "error",
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in LOGS.items() for text in texts])
def test_a_log_tells_the_class(name: str, text: str) -> None:
    assert classify(f"12:00:00 step 3\n{text}\n", 1, None).name == name


@pytest.mark.parametrize(("state", "name"), STATES.items())
def test_slurm_tells_the_class(state: str, name: str) -> None:
    assert classify("", 1, state).name == name


def test_a_scancel_after_a_cause_does_not_hide_it() -> None:
    assert classify("OSError: [Errno 28] No space left on device", 1, "CANCELLED by 0").name == "quota"


def test_kill_9_is_killed_until_slurm_says_that_memory_was_short() -> None:
    assert classify("", 137, None).name == "killed"
    assert classify("", -9, "FAILED").name == "killed"
    assert classify("", 137, "OUT_OF_MEMORY").name == "out_of_memory"


def test_an_exception_tells_the_class() -> None:
    assert classify("", None, None, Fenced("x")).name == "fenced"
    assert classify("", None, None, ConfigError("x")).name == "bad_request"
    assert classify("", None, None, HaltedError("auth: no such key")).name == "teacher_halted"
    assert classify("", None, None, MemoryError()).name == "out_of_memory"
    assert classify("", None, None, OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))).name == "quota"
    assert classify("", None, None, RuntimeError("CUDA error: out of memory")).name == "cuda_out_of_memory"


def test_the_exception_that_another_came_from_counts() -> None:
    try:
        try:
            raise OSError(errno.ENOSPC, "full")
        except OSError as error:
            raise RuntimeError("could not write") from error
    except RuntimeError as error:
        assert classify("", 1, None, error).name == "quota"


def test_every_class_says_what_is_done() -> None:
    assert all(failure.advice and "\n" not in failure.advice for failure in FAILURES.values())
    assert {failure.action for failure in FAILURES.values()} == {"requeue", "retry", "halve", "stop", "none"}
    assert {name for name, failure in FAILURES.items() if failure.exclude_node} == {"node_failure", "cuda_error"}


def test_only_what_another_try_cannot_mend_stops() -> None:
    stops = {name for name, failure in FAILURES.items() if failure.action == "stop"}
    assert stops == {"bad_request", "offline_hub", "no_progress", "teacher_halted", "image_changed", "image_unfit"}
