"""Shards as processes that are killed, against a server that fails: nothing is lost, doubled or sent too fast."""

from __future__ import annotations

import bisect
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from api_server import serve
from api_world import KEY, Noted, World
from batch_stage import entries, rows, write_toy

from btrm.teacher.config import TeacherConfig

HERE = Path(__file__).parent
RATES = {"429": 0.004, "500": 0.005, "529": 0.004, "reset": 0.002, "cut_body": 0.002, "garbled": 0.002, "hang": 0.001}
NEAR_S = 2.0  # an answer is on disk by then, also where the machine is busy


@dataclass
class Shards:
    """The shards of a job on this machine; `kills` are times."""

    root: Path
    config: Path
    count: int
    log: Path
    kills: list[float] = field(default_factory=list[float])
    stood_still_s: float = 0.0  # the longest that this process, and the server in it, got no turn
    running: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict[int, "subprocess.Popen[bytes]"])

    def start(self, element: int) -> None:
        command = [HERE / "shard_process.py", self.root, self.config, element, self.count]
        environment = {**os.environ, "OPENAI_API_KEY": KEY, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with self.log.open("ab") as log:
            self.running[element] = subprocess.Popen(
                [sys.executable, *map(str, command)], env=environment, stdout=log, stderr=log
            )

    def kill_one(self, draw: random.Random) -> None:
        element = draw.choice(sorted(self.running))
        self.kills.append(time.time())
        self.running[element].send_signal(signal.SIGKILL)
        self.running[element].wait()
        self.start(element)

    def end(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()

    def reap(self) -> None:
        """Forget those that are done. A shard that failed fails the test, with its words."""
        for element, process in list(self.running.items()):
            if process.poll() is not None:
                assert process.returncode == 0, self.log.read_text()[-3000:]
                del self.running[element]


def run_shards(shards: Shards, seed: int, every_s: tuple[float, float], timeout_s: float) -> float:
    """Run all shards to their end, kill one now and then; return the seconds."""
    draw, started = random.Random(seed), time.monotonic()
    try:
        for element in range(shards.count):
            shards.start(element)
        next_kill = started + draw.uniform(*every_s) + 3
        while shards.running:
            looked = time.monotonic()
            assert looked - started < timeout_s, "the shards do not end"
            time.sleep(0.02)
            shards.stood_still_s = max(shards.stood_still_s, time.monotonic() - looked - 0.02)
            shards.reap()
            if shards.running and time.monotonic() > next_kill:
                shards.kill_one(draw)
                next_kill = time.monotonic() + draw.uniform(*every_s)
    finally:
        shards.end()
    return time.monotonic() - started


def most_within(times: list[float], window_s: float) -> int:
    """Return the largest number of times in any window."""
    return max(bisect.bisect_left(times, start + window_s) - place for place, start in enumerate(times))


def check_log(log: list[Noted], kills: list[float], pairs: int, near_s: float) -> int:
    """Hold every request to a reason: a pair's answer, an injected fault, or a kill; return those of the kills.

    An answer is on disk `near_s` after it was sent.
    """
    by_call: defaultdict[str, list[Noted]] = defaultdict(list)
    for noted in log:
        if noted.fault is None:
            by_call[noted.call].append(noted)
    lost = by_call.pop("", [])  # killed while it sent the question
    assert len(by_call) == pairs
    for noted in by_call.values():
        assert noted[-1].answered
        lost += noted[:-1]
    for noted in lost:
        assert any(noted.time - 0.1 <= kill <= (noted.done or kill) + near_s for kill in kills), noted
    faults = sum(noted.fault is not None for noted in log)
    assert len(log) == pairs + faults + len(lost)
    return len(lost)


def written_config(root: Path, url: str, pairs: int, rpm: int) -> TeacherConfig:
    """Write config.json, and the pairs that it names."""
    write_toy(root, pairs)
    config = TeacherConfig(
        pairs=str(root / "pairs.parquet"),
        backend="openai",
        model="test-model",
        base_url=f"{url}/v1",
        layout="pairwise",
        n_pairs=pairs,
        rpm=rpm,
        timeout_s=15.0,
        part_pairs=100,
    )
    (root / "config.json").write_text(json.dumps(config.model_dump(mode="json")))
    return config


def prove(root: Path, pairs: int, shards: int, rpm: int, every_s: tuple[float, float], timeout_s: float) -> str:
    """Run it all, check it, and return the figures."""
    root.mkdir(exist_ok=True)
    with serve(World(rates=dict(RATES), seed=pairs, latency_s=0.2, jitter_s=0.3, retry_after_s=0.2)) as server:
        server.world.keep_bodies = False
        config = written_config(root, server.url, pairs, rpm)
        job = Shards(root, root / "config.json", shards, root / "shards.log")
        began = time.time()
        seconds = run_shards(job, 1, every_s, timeout_s)
        log = list(server.world.log)
        start_s = min(noted.time for noted in log) - began
        (root / "log.json").write_text(json.dumps({"log": server.world.log_json(), "kills": job.kills}))
    lost = check_log(log, job.kills, pairs, NEAR_S + job.stood_still_s)
    result = rows(config, root)
    assert len(result) == 2 * pairs
    assert len({(row["label_id"], row["side"]) for row in result}) == 2 * pairs
    assert {row["outcome"] for row in result} == {"scored"}
    asked = [key for entry in entries(root) for key in entry.keys]
    assert len(asked) == len(set(asked)) == 2 * pairs
    times = sorted(noted.time for noted in log)
    late_s = 1.0 + job.stood_still_s  # by as much may requests be noted late, and closer together than they were sent
    assert most_within(times, 60.0) <= rpm + job.stood_still_s * rpm / 60
    assert most_within(times, 5.0) <= (5.0 + late_s) * rpm / 60 + 1
    sending, allowed = times[-1] - times[0], len(log) / rpm * 60
    faults = sum(noted.fault is not None for noted in log)
    figures = (
        f"{pairs} pairs, {shards} shards, {len(job.kills)} kills: {len(log)} attempts = {pairs} + {faults} faults + "
        f"{lost} in flight at kills; most in 60 s {most_within(times, 60.0)} of {rpm}; {sending:.1f} s from the first "
        f"to the last, {allowed:.1f} s allowed ({sending / allowed:.3f}); {seconds:.1f} s in all, "
        f"{start_s:.1f} s to start, stood still for {job.stood_still_s:.2f} s"
    )
    print(figures)
    # A process that is killed last starts again, and asks alone.
    assert sending <= 1.1 * allowed + max(6.0, 2 * start_s) + job.stood_still_s, figures
    return figures


@pytest.mark.slow
@pytest.mark.usefixtures("need_teacher")
def test_every_pair_once_whoever_is_killed(tmp_path: Path) -> None:
    prove(tmp_path, pairs=300, shards=4, rpm=900, every_s=(4.0, 6.0), timeout_s=400)


@pytest.mark.soak
@pytest.mark.usefixtures("need_teacher")
def test_ten_thousand_pairs_over_sixteen_shards(tmp_path: Path) -> None:
    prove(tmp_path, pairs=10_000, shards=16, rpm=2000, every_s=(5.0, 15.0), timeout_s=900)


@pytest.mark.slow
@pytest.mark.usefixtures("need_teacher")
def test_a_wrong_key_stops_the_array_with_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    with serve(World(rates={"401": 1.0}, latency_s=0.1)) as server:
        written_config(tmp_path, server.url, 90, 6000)
        job = Shards(tmp_path, tmp_path / "config.json", 3, tmp_path / "shards.log")
        try:
            for element in (0, 1):
                job.start(element)
            assert all(process.wait(240) == 1 for process in job.running.values())
            asked = len(server.world.log)
            assert 1 <= asked <= 2 * 16
            job.start(2)
            assert job.running[2].wait(240) == 1
            assert len(server.world.log) == asked  # one that starts later asks nobody
            said = [line for line in job.log.read_text().splitlines() if "HaltedError: " in line]
            assert len(said) == 3 and len(set(said)) == 1 and "auth: " in said[0]
            server.world.configure({"rates": {}})
            monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "8")
            job.start(2)
            assert job.running[2].wait(240) == 0, job.log.read_text()
        finally:
            job.end()
    assert len(entries(tmp_path)) == 30
