"""One attempt at a time asks for a pair, whoever else was sent to, and by whatever cut."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from batch_stage import do_share, stage_run, write_toy

from btrm import leases
from btrm.config import ConfigError
from btrm.leases import Lease, claim
from btrm.locks import OWNER
from btrm.records import read_pairs
from btrm.teacher import claims
from btrm.teacher.batch_files import Asked, BatchFiles
from btrm.teacher.claims import claimed, live_jobs
from btrm.teacher.config import TeacherConfig
from btrm.teacher.layouts import make_calls
from btrm.teacher.redo import redo
from btrm.work import Unit


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "STALE_S", 0.1)
    monkeypatch.setattr(claims, "RENEW_S", 0.1)


def units(first: int, last: int) -> list[Unit]:
    return [Unit("part", ((first, last),))]


def another(root: Path, share: str, owner: str) -> Lease:
    return claim(stage_run(root).dir / ".shares" / share, owner, wait_s=0.0)


@pytest.mark.parametrize("mine", [None, "job 8"])
def test_a_live_job_with_another_cut_keeps_others_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mine: str | None
) -> None:
    if mine:
        monkeypatch.setenv(OWNER, mine)
    else:
        monkeypatch.delenv(OWNER, raising=False)
    run = stage_run(tmp_path)
    another(tmp_path, "0000000-0000010", "job 7")
    with pytest.raises(ConfigError, match="job 7 asks for some of these pairs"), claimed(run, units(5, 20)):
        pass
    assert live_jobs(run.dir / ".shares") == ["job 7"]
    with claimed(run, units(10, 20)) as journal:  # no pair of theirs
        assert journal.path.name == "0000010-0000020.0001.jsonl"
    monkeypatch.setattr(leases, "STALE_S", -1.0)  # it died
    with claimed(run, units(5, 20)):
        assert live_jobs(run.dir / ".shares") == []


def test_whoever_ran_here_before_is_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(OWNER, raising=False)
    run = stage_run(tmp_path)
    another(tmp_path, "0000000-0000010", f"pid {os.getpid() + 1}")
    with claimed(run, units(0, 10)) as journal:
        assert journal.path.name == "0000000-0000010.0002.jsonl"
    with claimed(run, units(0, 20)):
        pass


def test_nothing_is_forgotten_while_a_job_works(tmp_path: Path) -> None:
    write_toy(tmp_path, 4)
    config = TeacherConfig.build({"pairs": str(tmp_path / "pairs.parquet"), "n_pairs": 4})
    directory = stage_run(tmp_path).dir
    directory.mkdir()
    request = {"stage": "teacher", "name": "teacher", "root": str(tmp_path), "config": config.model_dump(mode="json")}
    request |= {"resources": {}, "fingerprint": "f", "inputs": {}}
    (directory / "stage.json").write_text(json.dumps(request))
    assert do_share(config, tmp_path) == 4
    another(tmp_path, "0000000-0000002", "job 7")
    with pytest.raises(ConfigError, match="job 7 is working here"):
        redo(directory, ["scored"])


def test_what_a_batch_may_answer_is_not_asked_directly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    write_toy(tmp_path, 4)
    values = {"pairs": str(tmp_path / "pairs.parquet"), "n_pairs": 4, "backend": "openai", "model": "m"}
    config = TeacherConfig.build({**values, "base_url": "http://127.0.0.1:9/v1", "max_attempts": 1})
    run = stage_run(tmp_path)
    pairs = dict(enumerate(read_pairs(tmp_path / "pairs.parquet")))
    keys = [(pair.label_id, side, 0) for pair in pairs.values() for side in (0, 1)]
    calls = list(make_calls(config, pairs, keys))
    files = BatchFiles(run, run.dir / "calls/batches", run.dir / ".shares", "0000000-0000004")
    batch = files.intend([Asked.of(call, "hash", 1) for call in calls[:3]], "holder", 0.0)
    with pytest.raises(ConfigError, match=r"3 in \w+, perhaps sent.*--mode batch"):
        do_share(config, tmp_path)
    assert files.settle(batch, "msgbatch_1") == "msgbatch_1"
    with pytest.raises(ConfigError, match="3 in msgbatch_1"):
        do_share(config, tmp_path)
    files.directory.rename(tmp_path / "away")
    assert do_share(config, tmp_path) == 4  # nobody answers there: outcomes, since these are few
