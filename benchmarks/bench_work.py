"""What an array of 100,000 cells costs before any model is loaded: planning, pinning the split, one element's share.

    python benchmarks/bench_work.py [--checkpoints 10] [--seeds 10000] [--done 10000]

Targets: planning < 5 s and < 400 MB; reading the split < 0.5 s; one element's share of it <= 0.2 s. Then `--done`
cells are judged by a rule, in two parts each, and planned again. Each figure is of a fresh
process and in process-CPU seconds, so that other work on the machine changes little.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from btrm.checkpoints import known_sha256
from btrm.data.toy import toy_pairs
from btrm.judges.ask import Asking
from btrm.judges.cells import Cell
from btrm.judges.chunk_claims import Claims
from btrm.judges.grid import JudgeConfig, run_judge, work_judge
from btrm.judges.numbered import Pairs, read_labels, read_numbered
from btrm.judges.pair_sets import PairSets
from btrm.judges.rule import RULES, RuleJudge
from btrm.prompts import get_prompt
from btrm.records import PreferencePair, write_pairs
from btrm.runs import Resources, RunPaths, StageRun
from btrm.work import Unit, read_units, share, write_units

PAIRS, ELEMENTS = 100, 1000


def make_inputs(root: Path, checkpoints: int, seeds: int) -> JudgeConfig:
    """Write pairs, and folders that look like a model and its checkpoints."""
    write_pairs(root / "pairs.parquet", toy_pairs("test", PAIRS))
    (root / "config.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 0]}}).encode()
    for number in range(checkpoints):
        folder = root / "models" / f"checkpoint-{number}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(str(number))
        (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    return JudgeConfig(
        checkpoints={"grpo": f"{root}/models/checkpoint-*"},
        base=None,
        pairs={"test": str(root / "pairs.parquet")},
        n_pairs=PAIRS,
        seeds=tuple(range(seeds)),
        part_pairs=PAIRS // 2,
    )


def stage_run(root: Path) -> StageRun:
    return StageRun(RunPaths(root), "judge", root / "judge", Resources(), root / "judge" / "stage.json")


def plan(root: Path, config: JudgeConfig) -> float:
    started = time.process_time()
    units = work_judge(config, stage_run(root))
    seconds = time.process_time() - started
    write_units(root / "split.json", units)
    return seconds


def read_split(root: Path, _config: JudgeConfig) -> float:
    started = time.process_time()
    read_units(root / "split.json")
    return time.process_time() - started


def cut(root: Path, _config: JudgeConfig) -> float:
    units = read_units(root / "split.json")
    started = time.process_time()
    share(units, ELEMENTS - 1, ELEMENTS)
    return time.process_time() - started


def judge(root: Path, config: JudgeConfig) -> float:
    """Let a rule judge the first cell of each checkpoint in two parts; the other seeds' parts are copies of those."""
    pairs, run = Pairs(read_labels(root / "pairs.parquet"), PAIRS), stage_run(root)
    first = config.model_copy(update={"seeds": config.seeds[:1]})
    units = work_judge(first, run)
    records: dict[str | None, dict[int, PreferencePair]] = {
        "test": read_numbered(root / "pairs.parquet", [unit.missing for unit in units])
    }
    sizes = config.pairs_a_part, config.pairs_at_once
    rule = RuleJudge(RULES["rule_random"], get_prompt(config.prompt))
    with Claims(root / "claims") as claims:
        asking = Asking(run, root / "judge" / "cells", PairSets({"test": pairs}), records, *sizes, claims)
        for unit in units:
            for chunks in asking.claimed([(cell_of(unit, config), unit.missing)]):
                asking.answer(rule, chunks)
    started = time.process_time()
    for part in list((root / "judge" / "cells").iterdir()):
        for seed in config.seeds[1:]:
            shutil.copyfile(part, part.with_name(part.name.replace("_seed0@", f"_seed{seed}@")))
    return time.process_time() - started


def cell_of(unit: Unit, config: JudgeConfig) -> Cell:
    """Return the cell that the stage makes of a unit's name."""
    label, _, seed = unit.name.removesuffix("@test").rpartition("_seed")
    weights = known_sha256(Path(config.checkpoints["grpo"]).parent / label)
    prompt = get_prompt(config.prompt)
    return Cell(unit.name, label, weights, None, prompt, config.sampling, config.n_samples, int(seed), "test")


def finish(root: Path, config: JudgeConfig) -> float:
    started = time.process_time()
    assert run_judge(config, stage_run(root)).results["asked_now"] == 0
    return time.process_time() - started


def _measured(step: Callable[[Path, JudgeConfig], float], root: Path, config: JudgeConfig) -> tuple[float, float]:
    return step(root, config), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(
    step: Callable[[Path, JudgeConfig], float], root: Path, config: JudgeConfig, what: str
) -> tuple[float, float]:
    """Run a step in a fresh process; print and return its seconds and peak memory (imports included)."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        seconds, mb = pool.submit(_measured, step, root, config).result()
    print(f"{what:<52} {seconds:7.3f} s, peak {mb:4.0f} MB", flush=True)
    return seconds, mb


def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--checkpoints", type=int, default=10)
    arguments.add_argument("--seeds", type=int, default=10_000)
    arguments.add_argument("--done", type=int, default=10_000)
    chosen = arguments.parse_args()
    missed: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        config = make_inputs(root, chosen.checkpoints, chosen.seeds)
        cells = chosen.checkpoints * chosen.seeds
        seconds, mb = measure(plan, root, config, f"plan {cells} cells, none judged")
        missed += [f"plan: {seconds:.1f} s, {mb:.0f} MB"] if seconds >= 5 or mb >= 400 else []
        seconds, _ = measure(read_split, root, config, f"read the split ({(root / 'split.json').stat().st_size} bytes)")
        missed += [f"split: {seconds:.2f} s"] if seconds >= 0.5 else []
        seconds, _ = measure(cut, root, config, f"one share of {ELEMENTS}")
        missed += [f"share: {seconds:.2f} s"] if seconds > 0.2 else []
        some = config.model_copy(update={"seeds": tuple(range(chosen.done // chosen.checkpoints))})
        measure(judge, root, some, f"make {chosen.done} judged cells of two parts each")
        seconds, mb = measure(plan, root, some, f"plan {chosen.done} cells, all judged")
        missed += [f"plan of judged cells: {seconds:.1f} s"] if seconds >= 2 else []
        measure(plan, root, config, f"plan {cells} cells, {chosen.done} judged")
        few = config.model_copy(update={"seeds": some.seeds[:100]})
        cells = chosen.checkpoints * len(few.seeds)
        measure(finish, root, few, f"rebuild {cells} cells, put their parts together")
        measure(finish, root, few, "rebuild them again")
    print("MISSED: " + "; ".join(missed) if missed else "targets met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
