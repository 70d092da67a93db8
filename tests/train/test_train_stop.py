"""Asked to stop, real trainers end their step, save it whole, and a rerun goes on from there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from trainer_support import TINY, request_of, write_sft

from btrm import stopping
from btrm.checkpoints import checkpoints, is_whole, step_of
from btrm.stages import execute
from btrm.train.rank import read_steps

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("need_swift")]
SFT: dict[str, Any] = {**TINY, "per_device_batch_size": 2, "gradient_accumulation": 1, "save_steps": 1000}


@pytest.fixture(autouse=True)
def nothing_asked() -> Generator[None]:
    stopping.forget()
    yield
    stopping.forget()


def once(done: Callable[[], bool], then: Callable[[], None]) -> None:
    """Do something in the background as soon as something is so."""

    def wait() -> None:
        while not done():
            time.sleep(0.02)
        then()

    threading.Thread(target=wait, daemon=True).start()


def steps_done(directory: Path) -> int:
    return (read_steps(directory) or (0, None))[0]


def test_a_request_costs_at_most_a_step(tmp_path: Path, tiny_model: Path) -> None:
    data = write_sft(tmp_path / "sft.jsonl", 64)
    values = {**SFT, "model": str(tiny_model), "data": str(data), "max_steps": 400, "cpu_processes": 2}
    request = request_of("sft", tmp_path / "run", **values)
    asked_at: list[int] = []

    def ask() -> None:
        asked_at.append(steps_done(request.parent))
        stopping.ask_to_stop("the time limit is near")

    once(lambda: steps_done(request.parent) >= 5, ask)
    with pytest.raises(stopping.Stopped, match="the time limit is near"):
        execute(request)
    (checkpoint,) = checkpoints(request.parent / "checkpoints")
    assert is_whole(checkpoint) and asked_at[0] <= step_of(checkpoint) < 400
    assert read_steps(request.parent) == (step_of(checkpoint), 400)
