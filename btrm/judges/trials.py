"""What is tried on a judge's first pairs before it judges: what guiding changes, and how often an answer flips."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from btrm.judges.base import Judge, JudgeRequest, make_request
from btrm.judges.cells import Cell
from btrm.judges.engine import Engine
from btrm.judges.grid_config import GridConfig
from btrm.judges.guided import GuidedJudge, measure_guiding
from btrm.judges.reproduce import Invariance, measure_flips
from btrm.publishing import write_json
from btrm.records import PreferencePair, stable_hash
from btrm.runs import StageRun

TRIALS = "trials"
_FLIP_PAIRS = 32  # where nothing promises that answers are the same in every batch


def try_first(
    run: StageRun,
    config: GridConfig,
    engine: Engine,
    judge: Judge,
    cell: Cell,
    pairs: Mapping[int, PreferencePair],
) -> None:
    """Measure once for each judge and prompt, in the process that judges the first pair of the first data set."""
    path = run.dir / TRIALS / f"{stable_hash(cell.judge, cell.prompt.name)}.json"
    if 0 not in pairs or path.exists():
        return
    batches: Invariance = getattr(engine, "batches", "cpu")
    found: dict[str, Any] = {"judge": cell.judge, "prompt": cell.prompt.name, "batch_invariance": batches}
    if isinstance(judge, GuidedJudge) and config.guided_check:
        found["guided"] = measure_guiding(judge, _requests(cell, pairs, config.guided_check), cell.prompt)
    if flip_pairs := count_flip_pairs(config.flip_check, batches):
        found["flips"] = measure_flips(judge, _requests(cell, pairs, flip_pairs), cell.prompt)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, found)


def count_flip_pairs(wanted: int | None, batches: Invariance) -> int:
    """Return how many pairs are asked about again: what is wanted, else some where flips are to be expected."""
    return wanted if wanted is not None else _FLIP_PAIRS if batches == "off" else 0


def read_trials(directory: Path) -> list[dict[str, Any]]:
    """Return what was found, a record a judge and prompt, in their order."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((directory / TRIALS).glob("*.json"))]
    return sorted(found, key=lambda trial: (trial["judge"], trial["prompt"]))


def _requests(cell: Cell, pairs: Mapping[int, PreferencePair], count: int) -> Sequence[JudgeRequest]:
    first = [pairs[number] for number in sorted(pairs) if number < count]
    return [make_request(pair, side, cell.prompt, cell.n_samples, cell.seed) for pair in first for side in (0, 1)]
