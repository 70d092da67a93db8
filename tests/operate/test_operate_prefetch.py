from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from hub_server import Repositories, serving

STUDY = """
from btrm.data.pairs import PairsConfig
from btrm.judges.grid import JudgeConfig
from btrm.launch.plan import Experiment, Step

def study():
    return Experiment("study", "a model and two data sets of the hub", (
        Step("pairs", PairsConfig(dataset="anthropic_hh")),
        Step("pairs", PairsConfig(dataset="summarize_from_feedback"), name="tldr"),
        Step("judge", JudgeConfig(base="org/tiny", checkpoints={"base": "org/tiny"}, engine="transformers",
             prompt="hh_score100_v1"))))
"""


def talk(reply: str) -> str:
    return f"\n\nHuman: Hello?\n\nAssistant: {reply}"


def hh_file() -> bytes:
    rows = [{"chosen": talk(f"good {n}"), "rejected": talk(f"bad {n}")} for n in range(3)]
    return gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())


def sff_file() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = {
        "info": {"id": "t1", "post": "A long post.", "title": "T", "subreddit": "s", "article": None},
        "summaries": [{"text": "one", "policy": "p"}, {"text": "two", "policy": "q"}],
        "choice": 1,
        "worker": "w",
        "batch": "b",
        "split": "valid2",
        "extra": {"confidence": 5},
    }
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([row]), file)
    return file.getvalue()


@pytest.fixture
def repositories() -> Repositories:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    return {
        ("models", "org/tiny"): {
            "config.json": b"{}",
            "model.safetensors.index.json": json.dumps(index).encode(),
            "model-1.safetensors": b"1" * 100,
            "model-2.safetensors": b"2" * 100,
            "pytorch_model.bin": b"3" * 200,
        },
        ("datasets", "Anthropic/hh-rlhf"): {
            "README.md": b"---\nlicense: mit\n---\n",
            "harmless-base/train.jsonl.gz": hh_file(),
            "harmless-base/test.jsonl.gz": hh_file(),
            "red-team-attempts/red_team_attempts.jsonl.gz": b"not asked for",
        },
        ("datasets", "openai/summarize_from_feedback"): {
            "comparisons/validation/0000.parquet": sff_file(),
            "comparisons/train/0000.parquet": sff_file(),
            "axis/test/0000.parquet": b"not asked for",
        },
    }


@pytest.fixture
def study(tmp_path: Path) -> str:
    (tmp_path / "study.py").write_text(STUDY)
    return f"{tmp_path}/study.py:study"


@pytest.fixture
def hub(repositories: Repositories) -> Generator[tuple[str, list[str]]]:
    with serving(repositories) as served:
        yield served


def btrm(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, check=False, timeout=400)


def site(tmp_path: Path) -> str:
    path = tmp_path / "off.toml"
    path.write_text(f'offline = true\n[env]\nHF_HOME = "{tmp_path}/hf"\n')
    return str(path)


@pytest.mark.slow
def test_what_was_fetched_is_found_and_read_offline(tmp_path: Path, study: str, hub: tuple[str, list[str]]) -> None:
    address, asked = hub
    words = ["btrm.cli", "prefetch", "--experiment", study, "--site", site(tmp_path)]
    first = btrm(*words, HF_ENDPOINT=address)
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("fetched ") == 3 and "model org/tiny" in first.stdout
    assert not [line for line in asked if "pytorch_model.bin" in line or "red_team" in line or "axis" in line]
    count = len(asked)
    again = btrm(*words, HF_ENDPOINT=address)
    assert again.returncode == 0 and again.stdout.count("there ") == 3 and len(asked) == count
    offline = {"HF_HOME": f"{tmp_path}/hf", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    run = ["--experiment", study, "--run", str(tmp_path / "run"), "--site", "local"]
    for name, splits in (("pairs", "[]"), ("tldr", '["test"]')):
        done = btrm("btrm.submit", "pairs", "--name", name, "--set", f"splits={splits}", *run, **offline)
        assert done.returncode == 0, done.stderr
    counts = {
        path.parent.name + "/" + path.name: len(path.read_text().splitlines())
        for path in tmp_path.rglob("*.rows.jsonl")
    }
    assert counts == {"pairs/train.rows.jsonl": 6, "pairs/test.rows.jsonl": 6, "tldr/test.rows.jsonl": 2}
    doctor = btrm("btrm.cli", "doctor", "--site", site(tmp_path), "--experiment", study)
    assert doctor.stdout.count("OK    offline:") == 3, doctor.stdout + doctor.stderr


@pytest.mark.slow
def test_what_cannot_be_fetched_is_all_named_and_the_rest_is_there(
    tmp_path: Path, study: str, hub: tuple[str, list[str]], repositories: Repositories
) -> None:
    del repositories["models", "org/tiny"], repositories["datasets", "Anthropic/hh-rlhf"]
    done = btrm("btrm.cli", "prefetch", "--experiment", study, "--site", site(tmp_path), HF_ENDPOINT=hub[0])
    assert done.returncode == 2 and done.stdout.count("fetched ") == 1
    assert "judge.base" in done.stderr and "pairs.dataset" in done.stderr and "HF_TOKEN in .env" in done.stderr
    unconnected = btrm(
        "btrm.cli", "prefetch", "--experiment", study, "--site", site(tmp_path), HF_ENDPOINT="http://127.0.0.1:9"
    )
    assert unconnected.returncode == 2 and "Traceback" not in unconnected.stderr
