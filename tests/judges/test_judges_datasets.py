"""Data sets as a dimension of the grid; runs from before they had names go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from judge_stage import RuleEngine, rows, run_stage
from test_judges_grid import config

from btrm.config import ConfigError
from btrm.data.toy import toy_pairs
from btrm.judges.grid import JudgeConfig
from btrm.records import read_pairs, write_pairs
from btrm.runs import Resources, RunManifest, RunPaths, fingerprint
from btrm.stage_inputs import code_digests
from btrm.stages import prepare

pytestmark = pytest.mark.usefixtures("rule_engine")


@pytest.fixture
def other_file(tmp_path: Path) -> Path:
    path = tmp_path / "reward-bench.v1.parquet"
    write_pairs(path, toy_pairs("validation", 5))
    return path


def judge_config(tmp_path: Path, pairs: Any, **values: Any) -> JudgeConfig:
    return JudgeConfig.build({**config(tmp_path, tmp_path), "pairs": pairs, **values})


def judge(tmp_path: Path, pairs: Any, root: str = "run", **values: Any) -> RunManifest:
    return run_stage("judge", judge_config(tmp_path, pairs, **values), tmp_path / root)


def make_older(root: Path, pairs: Path, plan: JudgeConfig, whole: bool = True) -> None:
    """Turn a run into what an older btrm left: no data set in names and rows, one file of pairs in the config."""
    directory = root / "judge"
    for path in (directory / "cells").iterdir():
        without_dataset(path)
        path.rename(path.with_name(path.name.replace(f"@{pairs.name.partition('.')[0]}", "")))
    without_dataset(directory / "judgements.parquet")
    (directory / "pairs.parquet").unlink()
    manifest = json.loads((directory / "manifest.json").read_text())
    digest = manifest["inputs"][str(pairs)]
    lineage = {"base": manifest["inputs"][plan.base or ""], "pairs": digest, **code_digests(plan)}
    settings = {name: value for name, value in plan.by_role("setting").items() if name in FORMER_SETTINGS}
    for name in ("manifest.json", "stage.json"):
        record = json.loads((directory / name).read_text())
        record["config"] = {key: value for key, value in record["config"].items() if key in FORMER_FIELDS}
        record["config"]["pairs"] = str(pairs)
        record["fingerprint"] = fingerprint("judge", settings, lineage)
        if name == "manifest.json":
            record["outputs"] = {path: out for path, out in record["outputs"].items() if path == "judgements.parquet"}
        (directory / name).write_text(json.dumps(record))
    if not whole:
        (directory / "manifest.json").unlink()


def without_dataset(path: Path) -> None:
    pq.write_table(pa.Table.from_batches(pq.read_table(path).to_batches()).drop_columns(["dataset"]), path)


FORMER_SETTINGS = {
    *("prompt", "engine", "dtype", "n_samples", "temperature", "top_p", "top_k", "max_new_tokens", "max_length")
}
FORMER_FIELDS = FORMER_SETTINGS | {
    *("checkpoints", "base", "pairs", "n_pairs", "seeds", "part_pairs", "batch_size", "kv_cache_mb"),
    *("gpu_memory_utilization", "tensor_parallel"),
}


def test_each_data_set_has_its_cells_and_all_pairs_are_published(
    rule_engine: type[RuleEngine], tmp_path: Path, pairs_file: Path, other_file: Path
) -> None:
    done = judge(tmp_path, f"{pairs_file},{other_file}")
    assert done.results["datasets"] == {"test": 6, "reward-bench": 5}  # n_pairs 6 is of each
    found = rows(tmp_path / "run")
    keys = {(r["judge"], r["seed"], r["dataset"], r["label_id"], r["side"], r["sample"]) for r in found}
    assert len(found) == len(keys) == 2 * 2 * (6 + 5) * 2 * 2
    assert list(dict.fromkeys(row["dataset"] for row in found)) == ["reward-bench", "test"]
    published = list(read_pairs(tmp_path / "run/judge/pairs.parquet"))
    assert published == [*toy_pairs("validation", 5), *toy_pairs("test", 6)]
    assert done.outputs["pairs.parquet"].rows == 11
    assert len(rule_engine.opened) == 1


def test_one_more_data_set_extends_and_one_less_is_a_cut(
    tmp_path: Path, pairs_file: Path, other_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    both = {"rb": str(other_file), "test": str(pairs_file)}
    judge(tmp_path, str(pairs_file))
    assert judge(tmp_path, both).results["asked_now"] == 5 * 4
    judge(tmp_path, both, root="fresh")
    assert rows(tmp_path / "run") == rows(tmp_path / "fresh") and "not named now" not in caplog.text
    assert judge(tmp_path, {"rb": str(other_file)}).results["asked_now"] == 0
    assert "judged before, not named now and so not in judgements.parquet: " in caplog.text
    judge(tmp_path, {"rb": str(other_file)}, root="alone")
    assert rows(tmp_path / "run") == rows(tmp_path / "alone")


def test_one_file_under_two_names_is_judged_twice(tmp_path: Path, pairs_file: Path) -> None:
    done = judge(tmp_path, {"a": str(pairs_file), "b": str(pairs_file)})
    assert done.results["asked_now"] == 2 * 2 * 2 * 6
    per_set = {name: [r for r in rows(tmp_path / "run") if r["dataset"] == name] for name in "ab"}
    assert [r["completion"] for r in per_set["a"]] == [r["completion"] for r in per_set["b"]]


@pytest.mark.parametrize("name", ["test", "validation"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_run_of_an_older_btrm_goes_on(
    rule_engine: type[RuleEngine], tmp_path: Path, other_file: Path, name: str, whole: bool
) -> None:
    pairs = tmp_path / f"{name}.pairs.parquet"
    write_pairs(pairs, toy_pairs("test", 12))
    plan = judge_config(tmp_path, str(pairs))
    before = run_stage("judge", plan, tmp_path / "run").fingerprint
    judged = rows(tmp_path / "run")
    make_older(tmp_path / "run", pairs, plan, whole)
    prepared = prepare("judge", plan, Resources(), tmp_path / "run")
    assert prepared.note == ("extend" if whole else "resume")
    older = prepared.request.fingerprint
    assert older != before
    rule_engine.asked = []
    done = run_stage("judge", plan, tmp_path / "run")
    assert rule_engine.asked == [] and rows(tmp_path / "run") == judged
    assert done.fingerprint == older  # what was made of its judgements stays what it was
    assert {Path(output).name for output in done.outputs} >= {"judgements.parquet", "pairs.parquet"}
    assert prepare("judge", plan, Resources(), tmp_path / "run").done
    more = {"rb": str(other_file), name: str(pairs)}
    assert judge(tmp_path, more, n_pairs=7).results["asked_now"] == 4 * (5 + 1)
    judge(tmp_path, more, root="fresh", n_pairs=7)
    assert rows(tmp_path / "run") == rows(tmp_path / "fresh")


def test_an_older_run_on_other_pairs_is_refused_still(tmp_path: Path, pairs_file: Path) -> None:
    plan = judge_config(tmp_path, str(pairs_file))
    run_stage("judge", plan, tmp_path / "run")
    make_older(tmp_path / "run", pairs_file, plan)
    write_pairs(pairs_file, toy_pairs("test", 11))
    with pytest.raises(ConfigError, match="complete with other settings"):
        judge(tmp_path, str(pairs_file))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ({"a.b": "x"}, "letters, digits, dash and underscore"),
        ({"a@b": "x"}, "letters, digits, dash and underscore"),
        ({}, "no pairs"),
        ("a/x.parquet,b/x.parquet", "called alike"),
    ],
)
def test_bad_names_of_data_sets_are_refused(pairs: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        JudgeConfig.build({"pairs": pairs})


def test_flags_name_data_sets() -> None:
    given = ["pairs=@pairs/validation.pairs.parquet"]
    assert JudgeConfig().override(given).pairs == {"validation": "@pairs/validation.pairs.parquet"}
    given = ["pairs=test=@pairs/test.pairs.parquet,rb=/data/rb.parquet"]
    assert JudgeConfig().override(given).pairs == {"test": "@pairs/test.pairs.parquet", "rb": "/data/rb.parquet"}
    assert set(JudgeConfig().override(["pairs.rb=/data/rb.parquet"]).pairs) == {"test", "rb"}
    assert RunPaths(Path("r")).resolve(JudgeConfig().pairs["test"]) == Path("r/pairs/test.pairs.parquet")


def test_a_file_without_pairs_is_refused_before_a_finished_run_is_touched(tmp_path: Path, other_file: Path) -> None:
    judge(tmp_path, {"one": str(other_file)})
    text, columns = tmp_path / "data.json", tmp_path / "rows.parquet"
    text.write_text('{"chosen": "a"}\n')
    pq.write_table(pa.table({"label_id": ["1"]}), columns)
    wrong = {"text": str(text), "folder": str(tmp_path), "columns": str(columns)}
    with pytest.raises(ConfigError) as found:
        judge(tmp_path, {"one": str(other_file), **wrong})
    lines = str(found.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == list(wrong)
    assert all("convert FILE --to btrm" in line for line in lines) and "response_0" in lines[2]
    assert (tmp_path / "run/judge/manifest.json").exists()
