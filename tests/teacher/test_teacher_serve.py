"""A real `vllm serve` on CPU, asked by the real SDK: answers that a schema holds, free ones, and a wrong key."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from random_model import LENGTH, make_random_model

from btrm.data.toy import toy_pairs
from btrm.publishing import write_json
from btrm.records import read_judgements, write_pairs
from btrm.runs import Resources, RunManifest
from btrm.stages import execute, prepare
from btrm.teacher.base import HaltedError
from btrm.teacher.config import TeacherConfig

KEY, STARTS_S = "sk-of-this-test", 480
ENVIRONMENT = {
    "VLLM_PLUGINS": "",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_API_KEY": KEY,
    "OMP_NUM_THREADS": "1",
}


@pytest.fixture(scope="module")
def served(need_vllm: None, need_teacher: None, tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """The address of a server of a tiny random model, which it calls `tiny`."""
    del need_vllm, need_teacher
    folder = tmp_path_factory.mktemp("served")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--model", str(make_random_model(folder / "model")), "--served-model-name", "tiny", "--dtype", "float32"]
    words += ["--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(LENGTH), "--enforce-eager"]
    words += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", str(LENGTH)]  # seeds crash with chunks on CPU
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *words, "--max-num-seqs", "32"],
            env={**os.environ, **ENVIRONMENT},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # with its engine's process it is one group
        )
    try:
        wait_until_it_answers(server, f"http://127.0.0.1:{port}/health", folder / "log")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        end(server)


def wait_until_it_answers(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + STARTS_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"vllm serve did not start:\n{log.read_text()[-3000:]}")


def end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def run_teacher(root: Path, served: str, **changed: Any) -> RunManifest:
    values = {
        "backend": "openai",
        "model": "tiny",
        "base_url": served,
        "temperature": 2.0,
        "max_tokens": 1500,
        "max_attempts": 2,
    }
    config = TeacherConfig.build({**values, "pairs": str(root / "pairs.parquet"), **changed})
    prepared = prepare("teacher", config, Resources(), root)
    write_json(prepared.directory / "stage.json", prepared.request.model_dump(mode="json"))
    return execute(prepared.directory / "stage.json")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    write_pairs(tmp_path / "pairs.parquet", toy_pairs("train", 5))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_holds_the_answers_of_a_real_server(root: Path, served: str, stream: bool) -> None:
    manifest = run_teacher(root, served, stream=stream)
    rows = read_judgements(root / "teacher/judgements.parquet").to_pylist()
    assert len({(row["label_id"], row["side"]) for row in rows}) == len(rows) == manifest.results["calls"] == 10
    ended = [row for row in rows if row["finish_reason"] == "stop"]
    assert ended and {row["outcome"] for row in ended} <= {"scored", "out_of_range"}
    assert any(row["outcome"] == "scored" for row in ended)
    assert all(row["prompt_tokens"] > 100 and 0 < row["completion_tokens"] <= 1500 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("layout", [{}, {"batch_size": 3}, {"layout": "pairwise"}])
def test_free_answers_of_a_real_server_are_outcomes(root: Path, served: str, layout: dict[str, Any]) -> None:
    run_teacher(root, served, structured="tags", max_tokens=60, **layout)
    rows = read_judgements(root / "teacher/judgements.parquet").to_pylist()
    assert len({(row["label_id"], row["side"]) for row in rows}) == len(rows) == 10
    assert {row["outcome"] for row in rows} <= {"unparsed", "truncated"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "model", "cause"), [("sk-another", "tiny", "auth: "), (KEY, "no-such-model", "model: ")]
)
def test_a_real_server_that_refuses_stops_the_teacher(
    root: Path, served: str, key: str, model: str, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(HaltedError, match=cause) as told:
        run_teacher(root, served, model=model)
    assert key not in str(told.value)
