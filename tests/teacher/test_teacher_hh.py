"""Real pairs through every layout, form and kind of backend: each has its rows, and each row reaches the student."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator
from itertools import permutations, product
from pathlib import Path

import pytest
from api_server import Server, serve
from api_world import KEY, MODEL, World, by_mark

from btrm.data.sft_data import SftDataConfig
from btrm.data.sources import iter_pairs
from btrm.publishing import write_json
from btrm.records import Judgement, PreferencePair, read_judgements, read_pairs, write_pairs
from btrm.runs import Resources, RunManifest, StageConfig
from btrm.scores import Outcome
from btrm.stages import execute, prepare
from btrm.teacher.config import TeacherConfig
from btrm.teacher.journal import journals, read_journal

PROMPT = "hh_score100_v3"
PAIRS = "hh.parquet"
ODD = ("", " \n\t", "\x00\u202e\u2028 \U0001f9ea e\u0301", "<s>100</s> === a ===\n</response>", "long " * 2000)
LAYOUTS = {"pointwise": {}, "batched": {"batch_size": 4}, "pairwise": {"layout": "pairwise"}}


def run_stage(root: Path, stage: str, config: StageConfig, name: str) -> RunManifest:
    prepared = prepare(name, config, Resources(), root, stage)
    write_json(prepared.directory / "stage.json", prepared.request.model_dump(mode="json"))
    return execute(prepared.directory / "stage.json")


@pytest.fixture(scope="module")
def hh(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pairs of the half that is here, and some odder ones."""
    root = tmp_path_factory.mktemp("hh")
    files = (shared_data / "hh-rlhf/harmless-base.half.jsonl.gz",)
    odd = (
        PreferencePair.make(context, responses, index % 2, source="odd", split="train")
        for index, (context, responses) in enumerate(product(ODD, permutations(ODD, 2)))
    )
    write_pairs(root / PAIRS, [*odd, *iter_pairs("anthropic_hh", "train", data_files=files)])
    return root


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    with serve(World(keep_bodies=False)) as running:
        yield running


def assert_every_pair(root: Path, name: str, n_pairs: int | None = None) -> list[Judgement]:
    """Look that the rows are those of the pairs, and that the student's rows and the dropped ones are all of them."""
    pairs = {pair.label_id: pair for pair in read_pairs(root / PAIRS, n_pairs)}
    rows = [Judgement(**row) for row in read_judgements(root / name / "judgements.parquet").to_pylist()]
    assert Counter((row.label_id, row.side) for row in rows) == Counter((i, s) for i in pairs for s in (0, 1))
    assert all(row.outcome == str(Outcome.SCORED) and row.completion.count("<s>") == 1 for row in rows)
    assert_taught(root, name, pairs)
    return rows


def assert_taught(root: Path, name: str, pairs: dict[str, PreferencePair]) -> None:
    data = SftDataConfig(judgements=f"@{name}/judgements.parquet", pairs=str(root / PAIRS), prompt=PROMPT)
    run_stage(root, "sft_data", data, f"{name}_sft")
    kept, dropped = ((root / f"{name}_sft" / file).read_bytes().splitlines() for file in ("sft.jsonl", "dropped.jsonl"))
    assert len(kept) + len(dropped) == 2 * len(pairs), Counter(json.loads(line)["reason"] for line in dropped)
    assert not dropped


@pytest.mark.slow
@pytest.mark.parametrize("form", ["tags", "schema"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_rule_judges_every_real_pair(hh: Path, layout: str, form: str) -> None:
    asked = {"prompt": PROMPT, "pairs": str(hh / PAIRS), "structured": form, **LAYOUTS[layout]}
    config = TeacherConfig.build({"backend": "rule_random", **asked})
    manifest = run_stage(hh, "teacher", config, f"rule_{layout}_{form}")
    rows = assert_every_pair(hh, f"rule_{layout}_{form}")
    assert manifest.results["pairs"] == manifest.results["asked_now"] == len(rows) // 2
    assert {row.layout for row in rows} == {layout}


@pytest.mark.slow
@pytest.mark.usefixtures("need_teacher")
@pytest.mark.parametrize(("form", "n_pairs"), [("schema", None), ("tags", 300)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_api_judges_every_real_pair(
    hh: Path, server: Server, layout: str, form: str, n_pairs: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    name, before = f"openai_{layout}_{form}", len(server.world.log)
    who = {"backend": "openai", "base_url": f"{server.url}/v1", "model": MODEL, "concurrency": 64, "n_pairs": n_pairs}
    asked = {"prompt": PROMPT, "pairs": str(hh / PAIRS), "structured": form, **LAYOUTS[layout]}
    config = TeacherConfig.build({**who, **asked})
    manifest = run_stage(hh, "teacher", config, name)
    scores = {(row.label_id, row.side): row.score for row in assert_every_pair(hh, name, n_pairs)}
    for path in journals(hh / name / "calls"):
        for entry in read_journal(path):
            for item in entry.items:
                assert scores[item.label_id, item.side] == by_mark("", item.mark)
    assert manifest.results["calls"] == len(server.world.log) - before
