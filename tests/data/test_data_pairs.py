from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from btrm import stages
from btrm.config import ConfigError
from btrm.data.pairs import PairsConfig
from btrm.data.rows import validate_rows
from btrm.launch.local import write_request
from btrm.records import read_jsonl, read_pairs
from btrm.runs import MANIFEST, Resources, RunManifest, read_manifest, verify

TOY = {"train": 30, "validation": 5, "test": 7}


def run(root: Path, **fields: Any) -> RunManifest | None:
    prepared = stages.prepare("pairs", PairsConfig.build(fields), Resources(), root)
    return None if prepared.done else stages.execute(write_request(prepared))


def hh_lines(n: int) -> str:
    talk = "\n\nHuman: question {}\n\nAssistant: {}"
    rows = ({"chosen": talk.format(i, "good"), "rejected": talk.format(i, "bad")} for i in range(n))
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_toy_pairs_become_parquet_and_rows(tmp_path: Path) -> None:
    manifest = run(tmp_path, n_pairs=TOY, seed=3)
    assert manifest is not None
    assert {name: output.rows for name, output in manifest.outputs.items()} == {
        **{f"{split}.pairs.parquet": n for split, n in TOY.items()},
        **{f"{split}.rows.jsonl": 2 * n for split, n in TOY.items()},
        "dropped.jsonl": 0,
    }
    assert manifest.config["prompt"] == "toy_score100"
    pairs = list(read_pairs(tmp_path / "pairs/train.pairs.parquet"))
    rows = [row for _, row in read_jsonl(tmp_path / "pairs/train.rows.jsonl")]
    assert validate_rows(tmp_path / "pairs/train.rows.jsonl") == len(pairs) == 30
    assert [r["label_id"] for r in rows[::2]] == [r["label_id"] for r in rows[1::2]] == [p.label_id for p in pairs]
    assert pairs[0].responses[1] in rows[1]["messages"][0]["content"]
    assert run(tmp_path, n_pairs=TOY, seed=3) is None and verify(tmp_path) == []


def test_more_pairs_extend_a_run_and_the_first_stay(tmp_path: Path) -> None:
    run(tmp_path, n_pairs=TOY)
    before = (tmp_path / "pairs/train.rows.jsonl").read_bytes()
    manifest = run(tmp_path, n_pairs={**TOY, "train": 50})
    assert manifest is not None and manifest.results["train"]["pairs"] == 50
    assert (tmp_path / "pairs/train.rows.jsonl").read_bytes().startswith(before)
    with pytest.raises(ConfigError, match="complete with other settings; seed was 0, now 1"):
        run(tmp_path, n_pairs=TOY, seed=1)


def test_files_drops_and_ties_are_counted(tmp_path: Path) -> None:
    rows = [
        {"p": "one", "a": "x", "b": "y", "l": 0},
        {"p": "two", "a": "x", "b": "y", "l": None},
        {"p": "three", "a": "x", "b": "x", "l": 0},
        {"p": "four", "a": 4, "b": "x", "l": 0},
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"context": "p", "response_0": "a", "response_1": "b", "preferred": "l"}
    fields: dict[str, Any] = {
        "dataset": "mapped", "data_files": {"dev": str(path)}, "columns": columns, "prompt": "score5_v2"
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"mine.jsonl:4: 'a': expected text, got 4 \(on_error=skip"):
        run(tmp_path / "strict", **fields)
    assert not [p for p in (tmp_path / "strict/pairs").iterdir() if p.suffix == ".parquet" or p.name == MANIFEST]
    # what failed at once left nothing, and may be tried again there with other settings
    assert run(tmp_path / "strict", **{**fields, "prompt": "score5_v1"}, on_error="skip")
    manifest = run(tmp_path / "run", **fields, on_error="skip")
    assert manifest is not None
    counts = {"pairs": 2, "ties": 1, "dropped_identical_responses": 1, "dropped_malformed": 1, "rows": 2}
    assert manifest.results == {"prompt": "score5_v2", "dev": counts}
    assert [p.preferred for p in read_pairs(tmp_path / "run/pairs/dev.pairs.parquet")] == [0, None]
    drops = [row for _, row in read_jsonl(tmp_path / "run/pairs/dropped.jsonl")]
    assert [(d["split"], d["reason"], d["where"][-2:]) for d in drops] == [
        ("dev", "identical_responses", ":3"),
        ("dev", "malformed", ":4"),
    ]


def test_bad_fields_are_named_together() -> None:
    with pytest.raises(ConfigError) as error:
        PairsConfig.build(
            {"dataset": "toy", "prompt": "toy_score10", "splits": ["train", "tst"], "n_pairs": {"tst": 0}}
        )
    assert "no such prompt; did you mean toy_score100" in str(error.value)
    assert "no split 'tst'" in str(error.value)
    with pytest.raises(ConfigError) as error:
        PairsConfig.build({"n_pairs": {"train": 0, "dev": 3}})
    for part in ("n_pairs.dev: not among splits", "n_pairs.train: expected at least 1", "n_pairs.test: toy has no end"):
        assert part in str(error.value)
    with pytest.raises(ConfigError, match="'anthropic_h': no such data set; did you mean anthropic_hh"):
        PairsConfig.build({"dataset": "anthropic_h"})
    with pytest.raises(ConfigError, match=r"data_files: /nothing.jsonl: no such file or folder"):
        run(Path("r"), dataset="anthropic_hh", data_files={"test": "/nothing.jsonl"})
    with pytest.raises(ConfigError, match="prompt: required for dataset mapped"):
        PairsConfig.build({"dataset": "mapped", "data_files": {"dev": "x.jsonl"}})


def test_usual_settings_follow_the_data_set() -> None:
    config = PairsConfig.build({"dataset": "anthropic_hh"})
    assert (config.prompt, config.chosen_splits) == ("hh_score100_v1", ("train", "test"))
    config = config.override(["data_files=test=x.jsonl,mine=y.jsonl", "splits=test"])
    assert config.chosen_splits == ("test",)
    assert config.override(["splits=[]", "data_files=test=x.jsonl"]).chosen_splits == ("test",)


def test_a_users_adapter_is_recorded_by_its_hash(tmp_path: Path) -> None:
    code = tmp_path / "mine.py"
    code.write_text(
        "from btrm.records import PreferencePair\n"
        "def f(split, limit, data_files):\n"
        "    yield PreferencePair.make('c', ('x', 'y'), 1, source='mine', split=split)\n"
    )
    manifest = run(tmp_path / "run", dataset=f"{code}:f", splits=["train"], prompt="score100_v1")
    assert manifest is not None and manifest.results["train"]["rows"] == 2
    assert len(manifest.results["adapter_sha256"]) == 64


@pytest.mark.slow
def test_killed_at_any_moment_a_rerun_makes_the_same_files(tmp_path: Path) -> None:
    source = tmp_path / "hh.jsonl"
    source.write_text(hh_lines(20_000))
    fields = {"dataset": "anthropic_hh", "data_files": {"train": str(source), "test": str(source)}}
    whole = run(tmp_path / "whole", **fields)
    assert whole is not None
    request = write_request(stages.prepare("pairs", PairsConfig.build(fields), Resources(), tmp_path / "killed"))
    killed = 0
    for delay in (0.6, 0.9, 1.2, 1.5):
        process = subprocess.Popen([sys.executable, "-m", "btrm.stages", str(request)], env={**os.environ})
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        assert read_manifest(request.parent) is None or process.returncode == 0
    assert killed
    manifest = stages.execute(request)
    assert manifest.outputs == whole.outputs and manifest.results == whole.results
    assert verify(tmp_path / "killed") == []
    assert not list(request.parent.rglob("*.part")) and not (request.parent / ".attempts").exists()
