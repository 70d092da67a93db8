"""Toy rows, stage requests and settings of a tiny model, for the trainers' tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from btrm.data.toy import toy_pairs
from btrm.prompts import get_prompt
from btrm.publishing import write_json
from btrm.records import PointwiseRow, write_jsonl
from btrm.runs import Resources, RunPaths, StageRun
from btrm.stage_table import get_stage
from btrm.stages import prepare

HERE = Path(__file__).parent
# Another node of a job, as its runner would start it, with shorter waits.
FOLLOW = (
    "import sys, pathlib; from btrm.train import follow; follow._SLOW_S = 0.2; "
    "sys.exit(follow.follow(pathlib.Path(sys.argv[1])))"
)
KIND: dict[str, Any] = {"model_type": "qwen2", "template": "chatml", "dtype": "float32"}
TINY: dict[str, Any] = {**KIND, "gradient_checkpointing": False, "lora_rank": 4}


def write_rows(path: Path, n_pairs: int) -> Path:
    """Write a rows file of the toy task."""
    prompt = get_prompt("toy_score100")
    rows = (
        PointwiseRow(prompt.messages(p.context, r), p.pair_id, p.label_id, side, p.preferred or 0).to_json()
        for p in toy_pairs("train", n_pairs)
        for side, r in enumerate(p.responses)
    )
    write_jsonl(path, rows)
    return path


def write_sft(path: Path, n_rows: int) -> Path:
    """Write chat rows whose answers are scores that say nothing."""
    prompt = get_prompt("toy_score100")
    write_jsonl(
        path,
        (
            {
                "messages": [
                    *prompt.messages(p.context, p.responses[0]),
                    {"role": "assistant", "content": prompt.target(i % 101)},
                ]
            }
            for i, p in enumerate(toy_pairs("train", n_rows))
        ),
    )
    return path


def request_of(
    stage: str, root: Path, name: str | None = None, resources: Resources | None = None, **values: Any
) -> Path:
    """Write a stage's request and return its path."""
    config = get_stage(stage).config.build(values)
    prepared = prepare(stage if name is None else name, config, resources or Resources(), root, stage)
    prepared.directory.mkdir(parents=True, exist_ok=True)
    path = prepared.directory / "stage.json"
    write_json(path, prepared.request.model_dump(mode="json"))
    return path


def stage_run(root: Path, name: str, gpus: int = 0) -> StageRun:
    """Return a running stage's view, without a request."""
    paths = RunPaths(root)
    directory = paths.stage(name)
    directory.mkdir(parents=True, exist_ok=True)
    return StageRun(paths, name, directory, Resources(gpus=gpus), directory / "stage.json")
