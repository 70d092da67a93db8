"""A benchmark's file through pairs, a rule judge and evaluate: its own score arrives in the files."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from btrm.data.pairs import PairsConfig
from btrm.judges.ask import judgements
from btrm.judges.base import Sampling
from btrm.judges.cells import Cell
from btrm.judges.rule import RuleJudge
from btrm.metrics.evaluate import EvaluateConfig
from btrm.prompts import get_prompt
from btrm.publishing import write_json
from btrm.records import read_jsonl, read_pairs, write_judgements
from btrm.runs import Resources, StageConfig
from btrm.scores import Scale
from btrm.stages import execute, prepare


def _run(name: str, config: StageConfig, root: Path) -> None:
    prepared = prepare(name, config, Resources(), root)
    request = prepared.directory / "stage.json"
    write_json(request, prepared.request.model_dump(mode="json"))
    execute(request)


def _said(response: str, scale: Scale, rng: random.Random) -> float:
    """Return the score that a response names."""
    del scale, rng
    return float(response)


def _row(number: int, subset: str, chosen: list[str], rejected: list[str]) -> dict[str, Any]:
    return {"id": str(number), "prompt": f"q{number}", "chosen": chosen, "rejected": rejected, "subset": subset}


ROWS = [
    _row(0, "Math", ["90"], ["10", "20", "30"]),  # right
    _row(1, "Math", ["90"], ["090", "20", "30"]),  # one of two
    _row(2, "Focus", ["40"], ["10", "20", "50"]),  # wrong
    {**_row(3, "Ties", ["80", "70"], ["50", "10"]), "id": "tied:3"},
    {**_row(4, "Ties", ["90"], ["75", "0"]), "id": "ref:3"},
]


def test_an_official_score_arrives_in_the_files(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    files = {"test": str(tmp_path / "rows.jsonl")}
    _run("pairs", PairsConfig.build({"dataset": "rewardbench2", "data_files": files}), tmp_path)
    pairs, source = tmp_path / "pairs" / "test.pairs.parquet", tmp_path / "judgements.parquet"
    prompt = get_prompt("hh_score100_v1")
    cell = Cell("x", "base", "m", None, prompt, Sampling(1, 1, 0, 0), 2, 0)
    write_judgements(source, judgements(cell, RuleJudge(_said, prompt), list(read_pairs(pairs))))
    both = {"judgements": str(source), "pairs": str(pairs)}
    _run("evaluate", EvaluateConfig.build(both), tmp_path)

    ((_, row),) = read_jsonl(tmp_path / "evaluate" / "eval.jsonl")
    ((_, detail),) = read_jsonl(tmp_path / "evaluate" / "details.jsonl")
    ties = 1 + 0.01 * 0.46211715726000975  # tanh(15 / 10 - 1)
    name = "RewardBench 2 without Factuality, Precise IF, Safety (5 of 1865 prompts)"
    assert (row["official_name"], row["official_score"]) == (name, pytest.approx((0.75 + 0 + ties) / 3))
    scores = {score["name"]: (score["value"], score["n"]) for score in detail["official"]}
    assert scores["RewardBench 2 Math"] == (0.75, 2) and scores["RewardBench 2 Ties"] == (pytest.approx(ties), 2)
    math = next(score for score in detail["official"] if score["name"] == "RewardBench 2 Math")
    assert math["low"] < math["value"] < math["high"]
