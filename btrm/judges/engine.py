"""What the grid needs of something that generates: opened on one model, switched between its adapters, closed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from btrm.judges.base import Judge, Sampling

# A step of a small engine costs much the same for 64 sequences as for 256; padded batches cost by their widest row.
BATCH_SIZES = {"transformers": 64, "vllm": 256}


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One model with room for its adapters, and how to draw from it.

    `adapter_rank` 0: no adapter will come. `batch_size` None: the engine's own.
    """

    model: str
    adapter_rank: int
    sampling: Sampling
    dtype: str
    max_length: int
    batch_size: int | None
    kv_cache_mb: int
    gpu_memory_utilization: float
    tensor_parallel: int


class Engine(Judge, Protocol):
    """A judge on one loaded model."""

    def select(self, adapter: Path | None) -> None:
        """Answer as this adapter from now on; None is the model itself."""
        ...


OpenEngine = Callable[[EngineSpec], AbstractContextManager[Engine]]
