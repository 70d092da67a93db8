from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")  # need_teacher says so where it must be there

from api_batches import Batches
from api_server import Server, serve
from api_world import KEY, World
from batch_stage import do_share, entries, rows, stage_run, write_toy

from btrm import stopping
from btrm.stopping import Stopped
from btrm.teacher import batch
from btrm.teacher.base import HaltedError
from btrm.teacher.batch_files import Asked, BatchFiles
from btrm.teacher.config import TeacherConfig

pytestmark = pytest.mark.usefixtures("need_teacher")
PAIRS = 6
BOTH = pytest.mark.parametrize("backend", ["anthropic", "gemini"])


@pytest.fixture
def batches() -> Batches:
    return Batches()


@pytest.fixture
def server(batches: Batches, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("BTRM_OWNER", "job 1")
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    stopping.forget()
    with serve(World(retry_after_s=0.01), more=[batches.add_routes]) as running:
        yield running
    stopping.forget()


def teacher(server: Server, root: Path, backend: str, n_pairs: int = PAIRS, **values: Any) -> TeacherConfig:
    """Write the pairs; return a config that asks about them."""
    root.mkdir(exist_ok=True)
    write_toy(root, n_pairs)
    given = {"pairs": str(root / "pairs.parquet"), "backend": backend, "model": "test-model", "mode": "batch"}
    return TeacherConfig(**{**given, "base_url": server.url, "n_pairs": n_pairs, "poll_s": 0.02, **values})


def killed(config: TeacherConfig, root: Path, batches: Batches, answer: int = 0) -> None:
    """Do the share in another process, which is killed at an answer, or by the API when a batch is created."""
    path = root / "config.json"
    path.write_text(config.model_dump_json())
    program = Path(__file__).with_name("batch_stage.py")
    child = subprocess.Popen([sys.executable, str(program), str(root), str(path), str(answer)])
    if not answer:
        batches.created = lambda: os.kill(child.pid, signal.SIGKILL)
    assert child.wait(240) == -signal.SIGKILL
    batches.created = lambda: None


def check_whole(config: TeacherConfig, root: Path, samples: int = 1) -> list[dict[str, Any]]:
    """All rows are there, each once, and no call was paid twice."""
    found = rows(config, root)
    keys = Counter((row["label_id"], row["side"], row["sample"]) for row in found)
    assert len(keys) == 2 * samples * (config.n_pairs or 0) and set(keys.values()) == {1}
    answered = Counter(entry.request_hash for entry in entries(root))
    assert set(answered.values()) == {1}
    return found


@BOTH
@pytest.mark.parametrize("layout", ["pointwise", "pairwise"])
def test_a_batch_that_takes_several_looks_is_journaled_at_half_the_price(
    backend: str, layout: str, server: Server, batches: Batches, tmp_path: Path
) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text(f'[{backend}]\n"*" = {{ input = 10, output = 100 }}\n')
    config = teacher(server, tmp_path / "run", backend, layout=layout, prices=str(prices))
    batches.looks = 3
    assert do_share(config, tmp_path / "run") == PAIRS
    found = check_whole(config, tmp_path / "run")
    assert {row["outcome"] for row in found} == {"scored"}
    assert len({row["score"] for row in found}) > PAIRS
    [made] = batches.made
    calls = entries(tmp_path / "run")
    assert len(made.requests) == len(calls) == PAIRS * (2 if layout == "pointwise" else 1)
    for entry in calls:
        assert entry.usage.prompt > 0 and entry.usage.output > 0
        assert entry.usd == pytest.approx((entry.usage.prompt * 10 + entry.usage.output * 100) / 2e6)
    assert sum(row["cost_usd"] for row in found) == pytest.approx(sum(entry.usd or 0 for entry in calls))


@BOTH
@pytest.mark.parametrize("structured", ["schema", "tags"])
def test_requests_and_answers_are_the_direct_ones(
    backend: str, structured: str, server: Server, batches: Batches, tmp_path: Path
) -> None:
    found: dict[str, list[Any]] = {}
    drawn: dict[str, Any] = {"structured": structured, "prompt_cache": "on", "top_p": 0.9}
    if backend == "gemini" or structured == "tags":
        drawn["thinking_budget"] = 1024
    for mode in ("direct", "batch"):
        config = teacher(server, tmp_path / mode, backend, mode=mode, **drawn)
        do_share(config, tmp_path / mode)
        names = ("label_id", "side", "score", "completion", "prompt_tokens", "completion_tokens", "request_hash")
        found[mode] = [[row[name] for name in names] for row in rows(config, tmp_path / mode)]
        if mode == "direct":
            found["asked"] = sorted(json.dumps(body, sort_keys=True) for body in server.world.bodies)
    assert found["batch"] == found["direct"]
    sent = [request.get("params") or request["request"] for request in batches.made[0].requests]
    assert sorted(json.dumps(request, sort_keys=True) for request in sent) == found["asked"]


@pytest.mark.slow
@BOTH
def test_a_batch_whose_sender_died_before_it_knew_the_id_is_found_and_not_sent_again(
    backend: str, server: Server, batches: Batches, tmp_path: Path
) -> None:
    config = teacher(server, tmp_path, backend)
    killed(config, tmp_path, batches)
    assert len(batches.made) == 1 and not entries(tmp_path)
    stranger = [{**request, "custom_id": f"x-{n}"} for n, request in enumerate(batches.made[0].requests)]
    batches.make(stranger, "x")
    do_share(config, tmp_path)
    check_whole(config, tmp_path)
    assert [batch.name for batch in batches.made][1:] == ["x"]


@pytest.mark.slow
@BOTH
def test_a_collector_that_is_killed_leaves_what_another_goes_on_from(
    backend: str, server: Server, batches: Batches, tmp_path: Path
) -> None:
    config = teacher(server, tmp_path, backend)
    killed(config, tmp_path, batches, answer=6)
    before = len(entries(tmp_path))
    assert 0 < before < 2 * PAIRS
    do_share(config, tmp_path)
    check_whole(config, tmp_path)
    assert len(batches.made) == 1


@BOTH
def test_what_was_written_down_and_never_sent_is_sent(
    backend: str, server: Server, batches: Batches, tmp_path: Path
) -> None:
    config = teacher(server, tmp_path, backend)
    run = stage_run(tmp_path)
    files = BatchFiles(run, run.dir / "calls" / "batches", run.dir / ".shares", "0000000-0000006")
    other = teacher(server, tmp_path / "other", backend)
    do_share(other, tmp_path / "other")
    asked = [Asked(e.items, e.sample, e.layout, e.form, e.request_hash, 1) for e in entries(tmp_path / "other")]
    batch = files.intend(asked, "", 0.0)
    batches.made.clear()
    do_share(config, tmp_path)
    check_whole(config, tmp_path)
    assert len(batches.made) == 1
    fate = files.fate(batch)
    assert fate is not None and fate.id is None


@pytest.mark.parametrize(
    ("backend", "passing", "lasting"),
    [
        ("anthropic", ["expired", "canceled", "api_error", "overloaded_error", "lost"], "invalid_request_error"),
        ("gemini", ["13", "14", "8"], "3"),
    ],
)
def test_what_a_batch_did_not_answer_is_asked_again_unless_it_is_the_requests_own_fault(
    backend: str, passing: list[str], lasting: str, server: Server, batches: Batches, tmp_path: Path
) -> None:
    config = teacher(server, tmp_path, backend)
    batches.fates = [*passing, "ok", lasting]
    do_share(config, tmp_path)
    outcomes = Counter(str(row["outcome"]) for row in check_whole(config, tmp_path))
    assert outcomes == {"scored": 2 * PAIRS - 1, "error": 1}
    assert [len(batch.requests) for batch in batches.made] == [2 * PAIRS, len(passing)]
    assert Counter(entry.attempts for entry in entries(tmp_path)) == {1: 2 * PAIRS - len(passing), 2: len(passing)}


@BOTH
def test_a_call_that_no_batch_answers_ends_as_an_error(
    backend: str, server: Server, batches: Batches, tmp_path: Path
) -> None:
    config = teacher(server, tmp_path, backend, n_pairs=1, max_attempts=2)
    fault = "expired" if backend == "anthropic" else "13"
    batches.fates = [fault, "ok", fault]
    do_share(config, tmp_path)
    assert Counter(str(row["outcome"]) for row in check_whole(config, tmp_path)) == {"scored": 1, "error": 1}
    assert len(batches.made) == 2


def test_a_batch_that_failed_as_a_whole_is_sent_again(server: Server, batches: Batches, tmp_path: Path) -> None:
    config = teacher(server, tmp_path, "gemini")
    batches.states = ["BATCH_STATE_FAILED"]
    do_share(config, tmp_path)
    check_whole(config, tmp_path)
    assert len(batches.made) == 2


@BOTH
def test_a_stop_leaves_the_batch_to_other_shards(
    backend: str, server: Server, batches: Batches, tmp_path: Path
) -> None:
    config = teacher(server, tmp_path, backend, layout="pairwise")
    batches.looks = 10**9
    batches.created = lambda: stopping.ask_to_stop("the time limit")
    with pytest.raises(Stopped):
        do_share(config, tmp_path)
    stopping.forget()
    batches.created = lambda: None
    [made] = batches.made
    made.looks = 0
    for element in range(4):
        do_share(config, tmp_path, element, 4)
    check_whole(config, tmp_path)
    assert len(batches.made) == 1


def test_a_call_whose_pairs_lie_in_two_shares_now_is_paid_once(
    server: Server, batches: Batches, tmp_path: Path
) -> None:
    config = teacher(server, tmp_path, "anthropic", batch_size=4)
    batches.looks = 10**9
    batches.created = lambda: stopping.ask_to_stop("the time limit")
    with pytest.raises(Stopped):
        do_share(config, tmp_path)
    stopping.forget()
    batches.made[0].looks = 0
    for element in range(3):
        do_share(config, tmp_path, element, 3)
    found = rows(config, tmp_path)
    assert len(found) == 2 * PAIRS and {row["outcome"] for row in found} == {"scored"}
    paid = [entry.request_hash for entry in entries(tmp_path) if entry.usage.output]
    assert len(paid) == len(set(paid)) == len(batches.made[0].requests) == 4
    assert len(batches.made) == 1


@BOTH
def test_errors_at_looks_pass_and_lost_answers_are_looked_for(
    backend: str, server: Server, batches: Batches, tmp_path: Path
) -> None:
    config = teacher(server, tmp_path, backend)
    server.world.script = ["429", "cut_headers", "500", None, None, "429", "reset", "garbled"]
    do_share(config, tmp_path)
    check_whole(config, tmp_path)
    assert len(batches.made) == 1


@BOTH
def test_a_wrong_key_stops_everyone_and_leaves_nothing_to_look_for(
    backend: str, server: Server, batches: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = teacher(server, tmp_path, backend)
    server.world.script = ["401"]
    with pytest.raises(HaltedError, match="auth"):
        do_share(config, tmp_path)
    before = len(server.world.log)
    monkeypatch.setenv("SLURM_JOB_ID", "2")
    do_share(config, tmp_path)
    check_whole(config, tmp_path)
    assert server.world.log[before].path.endswith(("batches", ":batchGenerateContent"))
    assert len(batches.made) == 1


@BOTH
def test_a_batch_that_this_key_does_not_see_is_not_sent_again(
    backend: str, server: Server, batches: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = teacher(server, tmp_path, backend)
    batches.looks = 10**9
    batches.created = lambda: stopping.ask_to_stop("the time limit")
    with pytest.raises(Stopped):
        do_share(config, tmp_path)
    stopping.forget()
    made, batches.made[:], batches.looks = list(batches.made), [], 1
    batches.created = lambda: None
    monkeypatch.setenv("SLURM_JOB_ID", "2")
    with pytest.raises(HaltedError, match=rf"batch: .*{made[0].id} of 20.* base_url; .* remove /.*\.\*"):
        do_share(config, tmp_path)
    assert not batches.made
    monkeypatch.setattr(batch, "_KEPT_S", -1.0)  # but after 29 days the API has none any more
    monkeypatch.setenv("SLURM_JOB_ID", "3")
    do_share(config, tmp_path)
    check_whole(config, tmp_path)
    assert len(batches.made) == 1


@BOTH
def test_a_batch_perhaps_sent_with_another_key_is_not_sent_again(
    backend: str, server: Server, batches: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = teacher(server, tmp_path, backend), stage_run(tmp_path)
    files = BatchFiles(run, run.dir / "calls" / "batches", run.dir / ".shares", "0000000-0000006")
    other = teacher(server, tmp_path / "other", backend)
    do_share(other, tmp_path / "other")
    batches.made.clear()
    asked = [Asked(e.items, e.sample, e.layout, e.form, e.request_hash, 1) for e in entries(tmp_path / "other")]
    sent = files.intend(asked, "", 0.0, lambda _: "0123abcd")
    with pytest.raises(HaltedError, match=f"{sent.name}, which was perhaps created, of .* another key or base_url"):
        do_share(config, tmp_path)
    assert not batches.made and files.fate(sent) is None
    (files.directory / f"{sent.name}.json").unlink()
    monkeypatch.setenv("SLURM_JOB_ID", "2")
    do_share(config, tmp_path)
    check_whole(config, tmp_path)
    [kept] = files.batches()
    assert len(kept.account) == 8 and KEY not in (files.directory / f"{kept.name}.json").read_text()


@BOTH
def test_a_batch_that_is_too_large_is_sent_in_halves(
    backend: str, server: Server, batches: Batches, tmp_path: Path
) -> None:
    config = teacher(server, tmp_path, backend)
    batches.refuse_above = 4
    do_share(config, tmp_path)
    check_whole(config, tmp_path)
    assert [len(batch.requests) for batch in batches.made] == [3, 3, 3, 3]


@BOTH
def test_batches_are_cut_below_the_limits(
    backend: str, server: Server, batches: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from btrm.teacher.backends.anthropic_batch import AnthropicBatches
    from btrm.teacher.backends.gemini_batch import GeminiBatches

    config = teacher(server, tmp_path, backend)
    monkeypatch.setattr(AnthropicBatches, "most_calls", 5)
    monkeypatch.setattr(GeminiBatches, "most_bytes", 10_000)
    do_share(config, tmp_path)
    check_whole(config, tmp_path)
    sizes = [len(json.dumps(batch.requests)) for batch in batches.made]
    assert len(sizes) > 2 and (backend == "anthropic" or max(sizes) < 10_000)
    assert backend == "gemini" or [len(batch.requests) for batch in batches.made] == [5, 5, 2]


def test_a_budget_is_held_to_before_a_batch_is_sent(
    server: Server, batches: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text('[anthropic]\n"*" = { input = 10, output = 100 }\n')
    config = teacher(server, tmp_path, "anthropic", prices=str(prices), budget_usd=0.5)
    with pytest.raises(HaltedError, match="budget"):
        do_share(config, tmp_path)
    assert not batches.made and not server.world.log
    monkeypatch.setenv("SLURM_JOB_ID", "2")
    do_share(teacher(server, tmp_path, "anthropic", prices=str(prices), budget_usd=2.0), tmp_path)
    check_whole(config, tmp_path)


def test_an_answer_that_is_forgotten_is_asked_for_in_a_new_batch(
    server: Server, batches: Batches, tmp_path: Path
) -> None:
    config = teacher(server, tmp_path, "anthropic")
    batches.fates = ["invalid_request_error"]
    do_share(config, tmp_path)
    [bad] = [entry for entry in entries(tmp_path) if entry.finish_reason == "error"]
    run = stage_run(tmp_path)
    line = json.dumps([bad.request_hash, bad.at, *bad.keys[0]]) + "\n"
    (run.dir / "calls" / "forgotten.jsonl").write_text(line)
    shutil.rmtree(run.dir / "parts")
    do_share(config, tmp_path)
    assert {row["outcome"] for row in rows(config, tmp_path)} == {"scored"}
    assert [len(batch.requests) for batch in batches.made] == [2 * PAIRS, 1]


def test_what_a_batch_holds_of_the_budget_is_let_go_by_whoever_collects_it(
    server: Server, batches: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from btrm.teacher.backends.anthropic_batch import AnthropicBatches

    prices = tmp_path / "prices.toml"
    prices.write_text('[anthropic]\n"*" = { input = 10, output = 100 }\n')
    monkeypatch.setattr(AnthropicBatches, "most_calls", PAIRS)  # about $0.33 at most each, so that one fits
    config = teacher(server, tmp_path, "anthropic", prices=str(prices), budget_usd=0.45)
    batches.looks = 10**9
    batches.created = lambda: stopping.ask_to_stop("the time limit")
    with pytest.raises(Stopped):
        do_share(config, tmp_path)
    stopping.forget()
    batches.created, batches.looks = lambda: None, 1
    batches.made[0].looks = 0
    monkeypatch.setenv("SLURM_JOB_ID", "2")
    with pytest.raises(HaltedError, match="budget"):  # perhaps the stopped one has spent all
        do_share(config, tmp_path)
    assert len(batches.made) == 1 and len(entries(tmp_path)) == PAIRS  # and what is paid for is collected first
    monkeypatch.setenv("SLURM_JOB_ID", "3")
    do_share(config, tmp_path)
    check_whole(config, tmp_path)
    assert len(batches.made) == 2


def test_a_batch_waits_for_what_others_hold(
    server: Server, batches: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from btrm.teacher.backends.anthropic_batch import AnthropicBatches

    prices = tmp_path / "prices.toml"
    prices.write_text('[anthropic]\n"*" = { input = 10, output = 100 }\n')
    monkeypatch.setattr(AnthropicBatches, "most_calls", PAIRS)
    config = teacher(server, tmp_path, "anthropic", prices=str(prices), budget_usd=0.45)
    do_share(config, tmp_path)
    check_whole(config, tmp_path)
    assert len(batches.made) == 2
