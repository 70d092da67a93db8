from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from multiprocessing.queues import Queue
from pathlib import Path
from types import SimpleNamespace

import pytest

from btrm import leases
from btrm.config import ConfigError
from btrm.leases import LEASES, Fenced, Lease, age, claim, held, holding, live_owner, owner_of, release
from btrm.locks import OWNER, exclusive
from btrm.publishing import replace, win, write_json


@pytest.fixture(autouse=True)
def another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims of one test stand for those of several processes; see `as_another_process`."""
    as_another_process(monkeypatch)


def as_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_claimed", {})


def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Give claims a clock that only their own waiting moves; return how long they slept each time."""
    naps: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: sum(naps), sleep=naps.append)
    monkeypatch.setattr(leases, "time", clock)
    return naps


def test_an_owner_takes_its_own_directory_over_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = claim(tmp_path, "job 1")
    as_another_process(monkeypatch)
    naps = slept(monkeypatch)
    second = claim(tmp_path, "job 1")
    assert not naps and second.number == first.number + 1
    second.check()
    with pytest.raises(Fenced, match="claimed by job 1"):
        first.check()


def test_another_waits_and_then_the_newest_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = claim(tmp_path, "job 1")
    as_another_process(monkeypatch)
    naps = slept(monkeypatch)
    new = claim(tmp_path, "job 2", wait_s=0.4)
    assert 0.4 < sum(naps) < 0.6
    assert new.number > old.number and live_owner(tmp_path) == "job 2"
    with pytest.raises(Fenced, match="job 2"):
        old.check()


def test_a_dead_owner_and_one_that_gave_it_back_need_no_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = claim(tmp_path, "job 1")
    assert live_owner(tmp_path) == "job 1"
    os.utime(dead.file, (0, 0))
    assert live_owner(tmp_path) is None
    as_another_process(monkeypatch)
    naps = slept(monkeypatch)
    follower = claim(tmp_path, "job 2", wait_s=60)
    assert follower.number == dead.number + 1
    release(follower)
    assert live_owner(tmp_path) is None
    as_another_process(monkeypatch)
    assert claim(tmp_path, "job 3", wait_s=60).number == follower.number + 1
    assert not naps


def test_a_renewed_claim_stays_alive(tmp_path: Path) -> None:
    lease = claim(tmp_path, "job 1")
    os.utime(lease.file, (0, 0))
    assert live_owner(tmp_path) is None
    lease.renew()
    assert live_owner(tmp_path) == "job 1"


def test_two_never_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An orphan between its request and its work, both of which hold the directory, must not come back."""
    release(claim(tmp_path, "job 1"))
    orphan = dict(leases._claimed)
    as_another_process(monkeypatch)
    newer = claim(tmp_path, "job 1", wait_s=0)
    monkeypatch.setattr(leases, "_claimed", orphan)
    with pytest.raises(Fenced):
        claim(tmp_path, "job 1", wait_s=0)
    newer.check()


def test_a_process_may_claim_again_what_it_gave_back(tmp_path: Path) -> None:
    first = claim(tmp_path, "job 1")
    release(first)
    assert claim(tmp_path, "job 1").number == first.number + 1


def test_a_fenced_owner_gives_nothing_back_and_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = claim(tmp_path, "job 1")
    as_another_process(monkeypatch)
    claim(tmp_path, "job 1")
    release(old)
    assert live_owner(tmp_path) == "job 1"


def test_every_way_to_publish_is_fenced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "stage"
    lease = claim(directory, "job 1")
    with holding(lease):
        write_json(directory / "mine.json", 1)
        as_another_process(monkeypatch)
        claim(directory, "job 1")
        (tmp_path / "part").write_text("x")
        for publish in (win, replace):
            with pytest.raises(Fenced):
                publish(tmp_path / "part", directory / "part")
        with pytest.raises(Fenced):
            write_json(directory / "mine.json", 2)
    assert not (directory / "part").exists() and json.loads((directory / "mine.json").read_text()) == 1
    write_json(directory / "mine.json", 3)  # what is no longer held fences nobody


def test_children_are_fenced_with_their_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from btrm.leases import check_held, held; print(len(held())); check_held()"
    lease = claim(tmp_path, "job 1")
    with holding(lease):
        free = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        as_another_process(monkeypatch)
        claim(tmp_path, "job 1")
        fenced = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (free.stdout, free.returncode) == ("1\n", 0)
    assert fenced.returncode == 1 and "Fenced: " in fenced.stderr
    assert held() == []


def _claim_many(directory: Path, name: str, start: float, got: Queue[list[int]]) -> None:
    leases._claimed.clear()
    time.sleep(max(0.0, start - time.time()))
    numbers: list[int] = []
    for _ in range(20):
        leases._claimed.clear()
        numbers.append(claim(directory, name, wait_s=0).number)
    got.put(numbers)


def test_of_processes_at_once_one_gets_each_number(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    got: Queue[list[int]] = context.Queue()
    start = time.time() + 0.3
    workers = [context.Process(target=_claim_many, args=(tmp_path, f"job {n}", start, got)) for n in range(4)]
    for worker in workers:
        worker.start()
    claimed = [got.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    assert all(numbers == sorted(set(numbers)) for numbers in claimed)  # for each they only rise
    every = [number for numbers in claimed for number in numbers]
    assert len(set(every)) == len(every) == 80


def test_old_claims_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(30):
        as_another_process(monkeypatch)
        last = claim(tmp_path, "job 1")
    kept = sorted(int(entry.name) for entry in (tmp_path / LEASES).iterdir() if entry.name.isdigit())
    assert kept == [29, 30] and last.number == 30
    assert [entry.name for entry in (tmp_path / LEASES).iterdir() if entry.name.startswith(".")] == []


def test_a_node_with_a_wrong_clock_is_judged_by_the_file_system_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = claim(tmp_path, "job 1")
    monkeypatch.setattr(time, "time", lambda: 4e9)  # this node is decades ahead
    lease.renew()
    assert abs(age(lease)) < 1000 and live_owner(tmp_path) == "job 1"
    os.utime(lease.file, (0, 0))
    assert age(lease) > 1e6 and live_owner(tmp_path) is None


def test_a_torn_or_vanished_claim_counts_as_given_back(tmp_path: Path) -> None:
    lease = claim(tmp_path, "job 1")
    lease.file.write_text('{"own')
    assert owner_of(lease) == "" and owner_of(Lease(tmp_path, 99)) == "" and age(Lease(tmp_path, 99)) == 0.0


def test_only_jobs_take_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim(tmp_path, "job 1")
    with pytest.raises(ConfigError, match="job 1 is working here"), exclusive(tmp_path):
        pass
    monkeypatch.setenv(OWNER, "job 2")
    monkeypatch.setattr(leases, "STALE_S", 0)
    as_another_process(monkeypatch)
    with exclusive(tmp_path):
        assert [lease.number for lease in held()] == [2]
        monkeypatch.setattr(leases, "STALE_S", 60)
        assert live_owner(tmp_path) == "job 2"
    assert live_owner(tmp_path) is None
