"""Several processes on one device: small models leave most of a GPU idle, one at a time.

Each worker is an element of the pool like any other: it has its part of the element's share, and takes what the others
have not begun. So one that dies leaves its rows to the rest, but for those that it was asking about when these ended.
"""

from __future__ import annotations

import fcntl
import logging
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from btrm.judges.grid_config import GridConfig
from btrm.publishing import write_json
from btrm.runs import StageError, StageRun
from btrm.stopping import safe_point, stop_asked
from btrm.work import Pool, Unit, write_units

_LOG = logging.getLogger(__name__)
WORKER = ("-m", "btrm.judges.worker")
PARENT, OPENING = "BTRM_PACK_PARENT", "BTRM_PACK_OPENING"
_LOOK_S = 1.0
_TOLD = 4000  # characters of a worker's traceback: its cause is at the end
_GRACE_S = 600.0  # for what is being asked when a stop is wanted: it is committed yet


@dataclass(slots=True)
class _Worker:
    """A worker's process. It says on its standard output how many rows each commit made safe, a line each."""

    number: int
    process: subprocess.Popen[bytes]

    @property
    def lines(self) -> IO[bytes]:
        """Where its lines come from."""
        assert self.process.stdout is not None
        return self.process.stdout


def share_packed(
    stage: str,
    config: GridConfig,
    run: StageRun,
    units: Sequence[Unit],
    pool: Pool | None,
    left: Callable[[Sequence[Unit]], int],
) -> Iterator[int]:
    """Do an element's share with `cells_per_gpu` processes; yield the rows of each of their commits.

    `left` counts the rows of units that are still missing. Raises StageError where rows of the share are at the end.
    Where a stop is asked for, stops them at their next safe point and raises Stopped.
    """
    if not units and pool is None:
        return
    whole = pool or Pool(units, 0, 1)
    order = run.scratch("worker.json")
    write_units(order.with_name("units.json"), whole.units)
    write_json(order, _order(stage, config, run, whole))
    workers = [_start(order, number, config.cells_per_gpu) for number in range(config.cells_per_gpu)]
    try:
        yield from _rows(workers)
    finally:
        _end(workers)
    failed = [worker for worker in workers if worker.process.returncode not in (0, 75)]
    for worker in failed:
        _LOG.warning("worker %d ended with %d, see above", worker.number, worker.process.returncode)
    safe_point()  # workers that were asked to stop have left their rows
    if missing := left(whole.own()):
        told = [path.read_text()[-_TOLD:] for path in sorted(order.parent.glob("failed.*"))]
        count = f"{len(failed)} of {len(workers)} workers of this element have failed"
        raise StageError("\n".join([*told, f"{count}, {missing} rows are missing"]))


def _order(stage: str, config: GridConfig, run: StageRun, pool: Pool) -> dict[str, object]:
    """Return what a worker is told: the config with its part of the device, and its place in the pool."""
    count = config.cells_per_gpu
    alone = {"cells_per_gpu": 1, "gpu_memory_utilization": config.gpu_memory_utilization / count}
    return {
        "stage": stage,
        "config": config.model_copy(update=alone).model_dump(mode="json"),
        "root": str(run.paths.root),
        "name": run.name,
        "directory": str(run.dir),
        "resources": run.resources.model_dump(mode="json"),
        "staged": {str(path): str(copy) for path, copy in run.staged.items()},
        "element": pool.element,
        "elements": pool.elements,
        "workers": count,
    }


def _start(order: Path, number: int, count: int) -> _Worker:
    """Start a worker; on a CPU it has its part of the cores."""
    cores = max((len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1) // count, 1)
    threads = min(cores, int(os.environ.get("OMP_NUM_THREADS") or cores))
    env = {**os.environ, PARENT: str(os.getpid()), OPENING: str(order), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, *WORKER, str(order), str(number)]
    return _Worker(number, subprocess.Popen(command, stdout=subprocess.PIPE, env=env))


def _rows(workers: Sequence[_Worker]) -> Iterator[int]:
    """Yield what workers say until all have ended."""
    asked = False
    with selectors.DefaultSelector() as selector:
        for worker in workers:
            selector.register(worker.lines, selectors.EVENT_READ, worker)
        while selector.get_map():
            if not asked and stop_asked():
                asked = True
                for worker in workers:
                    worker.process.send_signal(signal.SIGTERM)
            for key, _ in selector.select(_LOOK_S):
                worker: _Worker = key.data
                if said := os.read(worker.lines.fileno(), 1 << 16):  # whole lines: a short write to a pipe is one
                    yield sum(map(int, said.split()))
                else:
                    selector.unregister(key.fileobj)
                    worker.process.wait()


def _end(workers: Sequence[_Worker]) -> None:
    """See to it that no worker is left: first they may commit what they are asking."""
    for worker in workers:
        if worker.process.poll() is None:
            worker.process.terminate()
    deadline = time.monotonic() + _GRACE_S
    for worker in workers:
        try:
            worker.process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
        worker.lines.close()


@contextmanager
def one_at_a_time() -> Generator[None]:
    """Let the workers of a device load one after another: each measures what is free while nobody else takes of it."""
    path = os.environ.get(OPENING)
    if path is None:
        yield
        return
    with Path(path).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:  # a file system without locks: then as they come
            _LOG.info("workers load side by side (%s)", error)
        yield
        fcntl.flock(file, fcntl.LOCK_UN)
