"""The order in which pairs are trained on: whole pairs, each exactly once an epoch.

Symbols: W ranks, K completions a row, spg = steps per generation, G = per-device batch * W * spg completions a
generation batch, R = iterations * spg repeats of it, P = G / 2K pairs in it. The sampler emits one global stream and
knows nothing of ranks: accelerate's BatchSamplerShard deals it out in blocks of G / W rows.

Part of btrm, Apache License 2.0. It needs numpy and pyarrow, and nothing of btrm: the patch series puts this file into
ms-swift as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """How completions are dealt to ranks and steps; see the module's symbols."""

    world_size: int
    per_device: int
    steps_per_generation: int
    num_generations: int
    num_iterations: int = 1

    @property
    def generation_batch_size(self) -> int:
        """G, completions in one generation batch over all ranks."""
        return self.per_device * self.world_size * self.steps_per_generation

    @property
    def pairs(self) -> int:
        """P, pairs in one generation batch."""
        return self.generation_batch_size // (2 * self.num_generations)

    @property
    def repeats(self) -> int:
        """R, how often a generation batch is emitted: once for each micro-step that it serves."""
        return self.num_iterations * self.steps_per_generation

    @classmethod
    def build(
        cls, generation_batch_size: int, world_size: int, per_device: int, num_generations: int, num_iterations: int = 1
    ) -> BatchPlan:
        """Derive the plan; raise ValueError with the rule that is broken and the nearest values that keep it.

        Each rank must hold whole pairs (2K rows), because rewards are computed on a rank's own completions, and a
        whole number of per-device batches.
        """
        unit = _unit(world_size, per_device, num_generations)
        if generation_batch_size % unit or generation_batch_size < unit:
            low = generation_batch_size // unit * unit
            near = " or ".join(str(value) for value in (low, low + unit) if value > 0)
            raise ValueError(
                f"generation_batch_size: {generation_batch_size} does not give each of {world_size} process(es) whole "
                "pairs: (per_device_batch_size * steps_per_generation) % (2 * num_generations) must be 0, with "
                "steps_per_generation = generation_batch_size / (processes * per_device_batch_size) a whole number; "
                f"here per_device_batch_size={per_device}, num_generations={num_generations}. Nearest valid: {near}"
            )
        steps = generation_batch_size // (world_size * per_device)
        return cls(world_size, per_device, steps, num_generations, num_iterations)

    def check_pairs(self, n_pairs: int) -> None:
        """Raise ValueError where the pairs do not fill one generation batch, with the largest one that they fill."""
        if n_pairs >= self.pairs:
            return
        unit = _unit(self.world_size, self.per_device, self.num_generations)
        most = n_pairs * 2 * self.num_generations // unit * unit
        hint = f"at most {most} would do" if most else f"at least {unit // (2 * self.num_generations)} are needed"
        raise ValueError(
            f"generation_batch_size: {self.generation_batch_size} completions are {self.pairs} pairs "
            f"(num_generations={self.num_generations}), and there are {n_pairs}; {hint}"
        )


def _unit(world_size: int, per_device: int, num_generations: int) -> int:
    """Return the smallest generation batch: whole pairs and whole per-device batches on each process."""
    return world_size * math.lcm(2 * num_generations, per_device)


def pair_columns(dataset: Any, key: str) -> tuple[pa.Array, Ints]:
    """Return (keys, sides) of a Hugging Face dataset, by whole columns; an index map is followed in one gather.

    The library's own access goes through the map in small pieces, which takes seconds for 10**5 rows.
    """
    columns = [dataset.data.column(name).combine_chunks() for name in (key, "side")]
    if dataset._indices is not None:
        index = dataset._indices.column(0).combine_chunks()
        columns = [column.take(index) for column in columns]
    return columns[0], columns[1].to_numpy(zero_copy_only=False).astype(np.int64)


def index_pairs(keys: Sequence[str] | pa.Array, sides: Sequence[int] | NDArray[Any]) -> Ints:
    """Return rows_P2: the row numbers of side 0 and side 1 of each pair, pairs in order of first appearance.

    Raises ValueError for a pair that has not exactly one row a side.
    """
    import pyarrow as pa

    encoded = cast(Any, pa.array(keys)).dictionary_encode()
    slot_N = 2 * encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64) + np.asarray(sides, np.int64)
    counts = np.bincount(slot_N, minlength=2 * len(encoded.dictionary))
    if (counts != 1).any():
        name = encoded.dictionary[int(np.flatnonzero(counts != 1)[0]) // 2].as_py()
        raise ValueError(f"pair {name!r}: must have exactly one row of side 0 and one of side 1")
    rows = np.empty(len(counts), np.int64)
    rows[slot_N] = np.arange(len(slot_N))
    return rows.reshape(-1, 2)


class PairRepeatSampler:
    """One epoch's stream of row numbers.

    The pairs are permuted from (seed, epoch) and cut into chunks of P; a chunk is emitted R times; within it a pair is
    its side-0 row K times, then its side-1 row K times. The n % P pairs that fill no chunk rest for one epoch: they
    are taken in turn from one fixed permutation, so that all pairs rest equally often.
    """

    def __init__(
        self,
        rows_P2: Ints,
        plan: BatchPlan,
        seed: int,
        *,
        repeats: int | None = None,
        current_epoch: Callable[[], int] = lambda: 0,
    ) -> None:
        """`current_epoch` is asked at each start: a resumed trainer knows its epoch where accelerate's call is lost."""
        plan.check_pairs(len(rows_P2))
        self.rows_P2 = rows_P2
        self.plan = plan
        self.seed = seed
        self.repeats = plan.repeats if repeats is None else repeats
        self.epoch = 0
        self._current_epoch = current_epoch

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate before each epoch."""
        self.epoch = epoch

    @property
    def micro_steps(self) -> int:
        """The micro-steps of an epoch, on each rank."""
        return len(self.rows_P2) // self.plan.pairs * self.repeats

    def __len__(self) -> int:
        return self.micro_steps * self.plan.pairs * 2 * self.plan.num_generations

    def __iter__(self) -> Iterator[int]:
        for chunk in self.epoch_pairs(max(self.epoch, self._current_epoch())):
            rows = np.repeat(self.rows_P2[chunk].reshape(-1), self.plan.num_generations).tolist()
            for _ in range(self.repeats):
                yield from rows

    def epoch_pairs(self, epoch: int) -> Ints:
        """Return the pairs of an epoch as (chunks, P)."""
        n_pairs, size = len(self.rows_P2), self.plan.pairs
        rest = n_pairs % size
        kept = np.ones(n_pairs, bool)
        turn = np.random.default_rng([self.seed]).permutation(n_pairs)
        kept[turn[(epoch * rest + np.arange(rest)) % n_pairs]] = False
        order = np.random.default_rng([self.seed, epoch]).permutation(np.flatnonzero(kept))
        return order.reshape(-1, size)
