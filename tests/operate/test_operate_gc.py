from __future__ import annotations

import json
import os
import time
from pathlib import Path

import orjson
import pytest
from run_support import FakeQueue, attempt, complete, queue_line, request, state, submit

from btrm.checkpoints import is_whole, write_mark
from btrm.cli import main
from btrm.config import ConfigError
from btrm.leases import claim, release
from btrm.operate.gc import Wanted, collect, remove
from btrm.operate.ledger import ledger
from btrm.publishing import write_json


def finish(root: Path) -> None:
    for step in ("grpo", "judge", "evaluate"):
        complete(root, step)


def names(root: Path, wanted: Wanted) -> set[str]:
    return {str(item.path.relative_to(root)) for item in collect(root, wanted)}


def checkpoint(root: Path, step: int) -> Path:
    folder = root / "grpo" / "checkpoints" / f"checkpoint-{step}"
    for name in ("adapter_model.safetensors", "optimizer.pt", "global_step7/mp_rank_00.pt", "trainer_state.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"12345")
    write_mark(folder, "base", step)
    return folder


@pytest.mark.usefixtures("queue")
def test_dead_attempts_and_unused_code_go_and_what_is_claimed_stays(tmp_path: Path) -> None:
    submission = submit(tmp_path)
    finish(tmp_path)
    plan = orjson.loads(submission.plan_file.read_bytes())
    write_json(submission.plan_file, plan | {"code": str(tmp_path / ".code" / "used")})
    for name in (
        ".code/used/btrm/x.py",
        ".code/old/btrm/x.py",
        "pairs/.attempts/n1-1/part",
        "pairs/test.pairs.parquet",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "judge" / "set_aside").mkdir()
    (tmp_path / "judge" / "set_aside" / "claimed").write_text("x")
    complete(tmp_path, "judge", {"set_aside/claimed": 1})
    assert names(tmp_path, Wanted()) == {".code/old", "pairs/.attempts"}
    assert main(["gc", str(tmp_path), "--dry-run"]) == 0 and (tmp_path / ".code/old").exists()
    assert main(["gc", str(tmp_path)]) == 0
    assert not (tmp_path / ".code/old").exists() and (tmp_path / "pairs/test.pairs.parquet").exists()
    assert names(tmp_path, Wanted()) == set()


@pytest.mark.usefixtures("queue")
def test_old_records_go_and_what_they_cost_stays_known(tmp_path: Path) -> None:
    submission = submit(tmp_path)
    state(submission, "grpo", 0, attempt(outcome="done", started=0.0, seen=3600.0, ended=3600.0))
    (submission.logs / "2_0_log.out").write_text("log")
    assert names(tmp_path, Wanted(days=0.0)) == set()  # not complete
    finish(tmp_path)
    assert names(tmp_path, Wanted(days=1.0)) == set()  # not old
    old = time.time() - 86400 * 2
    for path in (*submission.logs.iterdir(), *(submission.directory / "state").iterdir()):
        os.utime(path, (old, old))
    before = ledger([tmp_path])
    remove(collect(tmp_path, Wanted(days=1.0)))
    assert not submission.logs.exists() and not (submission.directory / "state").exists()
    assert submission.plan_file.exists() and ledger([tmp_path]) == before
    assert before[0].gpu_hours == pytest.approx(8)


@pytest.mark.usefixtures("queue")
def test_optimizer_states_go_but_the_last_and_checkpoints_stay_whole(tmp_path: Path) -> None:
    submit(tmp_path)
    request(tmp_path, "grpo")
    first, last = checkpoint(tmp_path, 10), checkpoint(tmp_path, 20)
    assert names(tmp_path, Wanted()) == set()
    found = collect(tmp_path, Wanted(checkpoints=True))
    assert {item.path for item in found} == {first / "optimizer.pt", first / "global_step7"}
    remove(found)
    assert is_whole(first) and is_whole(last) and (last / "optimizer.pt").exists()
    assert sorted(json.loads((first / "btrm.json").read_text())["files"]) == [
        "adapter_model.safetensors",
        "trainer_state.json",
    ]
    checkpoint(tmp_path, 30)
    assert len(collect(tmp_path, Wanted(checkpoints=True))) == 2
    complete(tmp_path, "grpo", {"checkpoints/checkpoint-20/optimizer.pt": 5})
    assert names(tmp_path, Wanted(checkpoints=True)) == set()  # 10 has none, 20 is claimed, 30 is the last


def test_nothing_goes_while_anything_may_be_at_work(tmp_path: Path, queue: FakeQueue) -> None:
    submit(tmp_path)
    (tmp_path / "pairs" / ".attempts").mkdir()
    queue.hold(queue_line("2", "grpo", "RUNNING"))
    with pytest.raises(ConfigError, match="at work: grpo"):
        collect(tmp_path, Wanted())
    queue.fail()
    with pytest.raises(ConfigError, match=r"nobody knows \(no slurmctld"):
        collect(tmp_path, Wanted())
    queue.hold()
    assert names(tmp_path, Wanted()) == {"pairs/.attempts"}
    lease = claim(tmp_path / "pairs", "job 7")
    with pytest.raises(ConfigError, match=r"pairs \(job 7\)"):
        collect(tmp_path, Wanted())
    release(lease)
    assert names(tmp_path, Wanted()) == {"pairs/.attempts"}
