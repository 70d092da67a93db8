from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.context import SpawnProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import pytest

from btrm.config import ConfigError
from btrm.teacher import gate_step, shared_gate, tally
from btrm.teacher.base import HaltError
from btrm.teacher.chain import Chain
from btrm.teacher.gate import Cost
from btrm.teacher.gate_step import Said, Step
from btrm.teacher.shared_gate import SharedGate
from btrm.teacher.tally import Limits, Tally

_SPAWN = multiprocessing.get_context("spawn")
NOW = 1_000_000.0


@pytest.fixture(autouse=True)
def no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BTRM_OWNER", "SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID"):
        monkeypatch.delenv(name, raising=False)


async def gate(directory: Path, limits: Limits, name: str = "0-9.0001.jsonl", timeout_s: float = 60.0) -> SharedGate:
    return await SharedGate(Chain(directory), name, limits, timeout_s).open({})


# The arithmetic, by a clock of the test's own.


def granted(limits: Limits, costs: list[Cost], settle_s: float | None = None) -> list[tuple[float, int]]:
    """Ask without a rest; return (time, tokens that the call used): a third of the most."""
    now, state = NOW, Tally()
    turns: list[tuple[float, int]] = []
    under_way: list[tuple[float, Cost]] = []
    for most in costs:
        while (at := state.take(limits, most, now)) is None:
            now += 0.3
            for sent, cost in [(s, c) for s, c in under_way if settle_s is not None and s + settle_s < now]:
                under_way.remove((sent, cost))
                state.give_back(sent, cost.tokens - cost.tokens // 3)
                state.learn(cost.tokens // 3)
        under_way.append((at, most))
        turns.append((at, most.tokens // 3 if settle_s is not None else most.tokens))
    return turns


def most_in_a_minute(turns: list[tuple[float, int]]) -> int:
    """Return the largest sum in any 61 s: a minute at the server, of calls that are up to a second late."""
    most = total = first = 0
    for at, tokens in turns:
        total += tokens
        while turns[first][0] <= at - 61:
            total -= turns[first][1]
            first += 1
        most = max(most, total)
    return most


@pytest.mark.parametrize("rpm", [1, 7, 60, 1000, 10_000])
def test_requests_of_any_minute_keep_the_limit_and_use_it(rpm: int) -> None:
    turns = granted(Limits(rpm=rpm), [Cost()] * (3 * rpm + 1))
    assert most_in_a_minute([(at, 1) for at, _ in turns]) <= rpm
    assert turns[-1][0] - turns[0][0] == pytest.approx(3 * 61.2, rel=0.001)


@pytest.mark.parametrize("settle_s", [None, 0.5, 20.0, 90.0])
@pytest.mark.parametrize("largest", [300, 3_000, 29_000])
def test_tokens_of_any_minute_keep_the_limit(settle_s: float | None, largest: int) -> None:
    draw = random.Random(0)
    costs = [Cost(draw.randint(largest // 10, largest)) for _ in range(500)]
    turns = granted(Limits(tpm=30_000), costs, settle_s)
    assert most_in_a_minute(turns) <= 30_000
    if largest == 300 and settle_s in {None, 0.5}:
        minutes = (turns[-1][0] - NOW) / 60
        assert sum(tokens for _, tokens in turns) / minutes > 0.9 * 30_000


def test_a_call_larger_than_a_minute_is_refused_with_both_figures() -> None:
    with pytest.raises(ConfigError, match=r"tpm 1000: one call may take 1001 tokens"):
        Tally().take(Limits(tpm=1000), Cost(1001), NOW)


def test_a_budget_waits_for_calls_under_way_and_halts_when_it_is_spent() -> None:
    limits, state = Limits(budget_usd=1.0), Tally()
    state.spent, state.held = {"a": 0.5}, {"b": tally.Held(0.4, NOW)}
    assert state.affords(limits, 0.1, NOW - 10)
    assert not state.affords(limits, 0.2, NOW - 10)  # what b does not use will be there
    with pytest.raises(HaltError, match=r"\$0\.5000 of budget_usd 1 .* \$0\.4000 perhaps .* cost \$0\.2000"):
        state.affords(limits, 0.2, NOW + 10)  # b is dead
    with pytest.raises(HaltError, match="budget_usd 1"):
        state.affords(limits, 0.6, NOW - 10)


def test_a_record_comes_back_as_it_was_and_a_torn_one_counts_as_none() -> None:
    state = Tally(1.5, 2.5, 3.5, {7: 8}, 9.5, {"a": 0.25}, {"a": tally.Held(0.5, 1.0)})
    state.halted = tally.Halt("quota", "no more", "7", 1.0)
    assert Tally.from_bytes(state.to_bytes()) == state
    assert Tally.from_bytes(b"") == Tally.from_bytes(b"\0" * 30) == Tally.from_bytes(b'{"requ') == Tally()


# The chain.


def _add(directory: str, times: int) -> None:
    chain = Chain(Path(directory))
    for _ in range(times):
        chain.update(lambda record, _now: b"%d" % (int(record or 0) + 1))


def test_no_change_of_several_processes_is_lost(tmp_path: Path) -> None:
    run_all([_SPAWN.Process(target=_add, args=(str(tmp_path), 100)) for _ in range(4)])
    assert Chain(tmp_path).look() == b"400"
    assert len(list(tmp_path.iterdir())) <= 2


def test_a_number_that_was_used_and_cleared_away_wins_nothing(tmp_path: Path) -> None:
    chain, slow = Chain(tmp_path), Chain(tmp_path)
    changes: list[bytes] = []

    def change(record: bytes, _now: float) -> bytes:
        if not changes:
            _add(str(tmp_path), 10)  # meanwhile others go on, and clear the next number away
        changes.append(record)
        return b"%d" % (int(record or 0) + 1)

    _add(str(tmp_path), 1)
    slow.update(change)
    assert chain.look() == b"12" and changes == [b"1", b"11"]


def test_a_lost_answer_to_a_link_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def lost(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError(target)

    monkeypatch.setattr(os, "link", lost)
    _add(str(tmp_path), 5)
    assert Chain(tmp_path).look() == b"5"


def test_the_clock_is_the_file_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 5.0)  # this node's own clock is far off
    chain = Chain(tmp_path)
    chain.look()
    (tmp_path / "probe").touch()
    assert abs(chain.clock.now() - (tmp_path / "probe").stat().st_mtime) < 300


def test_what_killed_processes_left_is_swept(tmp_path: Path) -> None:
    old, new = tmp_path / ".host-1-aa", tmp_path / ".host-2-bb"
    old.touch()
    new.touch()
    os.utime(old, (NOW, NOW))
    Chain(tmp_path).sweep()
    assert not old.exists() and new.exists()


# The gate, with real processes and the real clock.


def run_all(processes: list[SpawnProcess]) -> None:
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0


def _ask(directory: str, name: str, limits: Limits, count: int, log: str) -> None:
    async def ask() -> None:
        shared = await gate(Path(directory), limits, name)

        async def one() -> None:
            turn = await shared.admit(Cost(100))
            line = b"%.4f\n" % shared._chain.clock.now()  # pyright: ignore[reportPrivateUsage]
            await asyncio.sleep(0.05)
            os.write(file, line)
            await shared.settle(turn, Cost(60))

        for start in range(0, count, 20):
            await asyncio.gather(*(one() for _ in range(min(20, count - start))))
        await shared.close()

    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    asyncio.run(ask())


@pytest.mark.slow
def test_four_shards_share_one_rate(tmp_path: Path) -> None:
    log, limits = tmp_path / "sent", Limits(rpm=6000)
    run_all(
        [
            _SPAWN.Process(target=_ask, args=(str(tmp_path / "g"), f"{n}-9.0001.jsonl", limits, 60, str(log)))
            for n in range(4)
        ]
    )
    sent = sorted(float(line) for line in log.read_text().split())
    assert len(sent) == 240
    assert sent[-1] - sent[0] > 239 * 0.0102 - shared_gate._GOOD_S  # pyright: ignore[reportPrivateUsage]
    # A turn may be taken shared_gate._GOOD_S late, so any 40 take no less than the rest of their time.
    assert all(late - early > 40 * 0.0102 - 0.8 for early, late in zip(sent, sent[40:], strict=False))
    assert sent[-1] - sent[0] < 30  # a shard that waited out a minute would be later


async def until(ready: Callable[[], bool]) -> None:
    """Wait for what other tasks do, on a machine that may be busy."""
    deadline = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def test_a_pause_holds_all_back(tmp_path: Path) -> None:
    async def ask() -> None:
        limits = Limits(rpm=60_000)
        one, other = await gate(tmp_path, limits), await gate(tmp_path, limits, "9-19.0001.jsonl")
        await one.admit(Cost())
        started = time.monotonic()
        await other.pause(1.2)
        await until(lambda: one._paused_until > 0)  # pyright: ignore[reportPrivateUsage]
        await asyncio.gather(*(some.admit(Cost()) for some in (one, other) for _ in range(30)))
        assert 1.1 < time.monotonic() - started < 30
        await one.close()
        await other.close()

    asyncio.run(ask())


@pytest.mark.parametrize("limits", [Limits(), Limits(rpm=1), Limits(budget_usd=1)])
def test_the_first_halt_is_everyones_within_two_seconds(tmp_path: Path, limits: Limits) -> None:
    assert shared_gate._POLL_S + shared_gate._STEP_S < 2  # pyright: ignore[reportPrivateUsage]

    async def ask() -> None:
        one, other = await gate(tmp_path, limits), await gate(tmp_path, limits, "9-19.0001.jsonl")
        await one.admit(Cost(usd=1))
        waiting = asyncio.create_task(other.admit(Cost(usd=1))) if limits.any else None
        await asyncio.sleep(0.1)
        await one.halt(HaltError("no money", "quota"))
        await other.halt(HaltError("me too", "auth"))
        if waiting is not None:
            with pytest.raises(HaltError, match="no money"):
                await asyncio.wait_for(waiting, 30)
        for some in (one, other):
            with pytest.raises(HaltError, match="no money"):
                some.check()
            with pytest.raises(HaltError, match="no money") as caught:
                await some.admit(Cost())
            assert caught.value.cause == "quota"
            await some.close()

    asyncio.run(ask())


def test_a_halt_stays_for_its_own_array_and_not_for_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> None:
        shared = await gate(tmp_path, Limits())
        try:
            await shared.admit(Cost())
            await shared.halt(HaltError("no such key", "auth"))
        finally:
            await shared.close()

    monkeypatch.setenv("BTRM_OWNER", "job 7")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    asyncio.run(ask())
    with pytest.raises(HaltError, match="no such key"):
        asyncio.run(ask())
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "8")
    asyncio.run(ask())


def test_a_halt_ends_with_its_process_where_no_runner_has_started_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask() -> None:
        shared = await gate(tmp_path, Limits())
        try:
            await shared.admit(Cost())
            await shared.halt(HaltError("no such key", "auth"))
        finally:
            await shared.close()

    monkeypatch.setenv("SLURM_JOB_ID", "7")  # one allocation, in which btrm is run by hand, again and again
    asyncio.run(ask())
    with pytest.raises(HaltError, match="no such key"):
        asyncio.run(ask())
    monkeypatch.setattr(gate_step, "_PROCESS", "another process, perhaps of the same number")
    asyncio.run(ask())


def test_a_long_pause_of_an_earlier_job_is_forgotten_and_told_in_every_shard_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def ask(pause_s: float = 0.0) -> float:
        one, other = await gate(tmp_path, Limits()), await gate(tmp_path, Limits(), "9-19.0001.jsonl")
        if pause_s:
            await one.pause(pause_s)
            await until(lambda: other._paused_until > 0)  # pyright: ignore[reportPrivateUsage]
        left = other._paused_until - other._chain.clock.now()  # pyright: ignore[reportPrivateUsage]
        await one.close()
        await other.close()
        return left

    assert asyncio.run(ask(1800)) > 1700
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 2 and all(re.fullmatch(r"nothing is sent until \d\d:\d\d:\d\d: .*", line) for line in told)
    assert asyncio.run(ask()) > 1700  # the same job
    monkeypatch.setattr(gate_step, "_PROCESS", "another")
    assert asyncio.run(ask()) < 0


def test_times_too_far_ahead_are_mended_once_and_for_all(tmp_path: Path) -> None:
    chain, limits = Chain(tmp_path), Limits(rpm=600, tpm=60_000)
    chain.look()
    late = chain.clock.now() + 86_400  # the clock was set back by a day
    state = Tally(late, late, 100.0, {int(late): 60_000}, late)
    paused = Tally.from_bytes(state.to_bytes())
    assert paused.mend(limits, chain.clock.now()) and paused.paused_until <= chain.clock.now() + 3600
    state.paused_until = 0.0
    chain.update(lambda _record, _now: state.to_bytes())
    step = Step("a", limits, 60.0, Said(), [Cost(100)], 0.0, 0.0, 0.0)
    step.make(chain)
    found, now = Tally.from_bytes(chain.look()), chain.clock.now()
    assert found.requests <= now + 1.7 and found.tokens <= now + 1.7
    assert list(found.window.values()) == [60_000] and max(found.window) <= now + 1.5
    assert not found.mend(limits, now)


def test_times_that_are_as_they_should_be_stay() -> None:
    limits, state, now = Limits(rpm=6000, tpm=60_000), Tally(), NOW
    for _ in range(1000):
        before = Tally.from_bytes(state.to_bytes())
        assert not state.mend(limits, now - 0.5) and state == before  # seen by a node whose clock is behind
        if state.take(limits, Cost(10), now) is None:
            now += 0.3
    slow = Tally()
    slow.take(Limits(rpm=1), Cost(), NOW)
    assert slow.free(Limits(rpm=600), Cost(), NOW) > NOW + 60
    assert slow.mend(Limits(rpm=600), NOW) and slow.free(Limits(rpm=600), Cost(), NOW) < NOW + 2


def test_a_budgets_end_tells_what_is_doubtful_and_how_to_go_on(tmp_path: Path) -> None:
    async def ask() -> None:
        shared = await gate(tmp_path, Limits(budget_usd=1.0))
        await shared.settle(await shared.admit(Cost(100, 0.5)), Cost(50, 0.25))
        lost = await shared.admit(Cost(100, 0.5))
        await shared.settle(lost, lost.most)
        try:
            await shared.admit(Cost(100, 0.5))
        finally:
            await shared.close()

    with pytest.raises(HaltError) as caught:
        asyncio.run(ask())
    told = str(caught.value)
    assert "$0.2500 of budget_usd 1 are spent, $0.5000 perhaps ($0.5000 by calls whose answer never came)" in told
    assert "--budget-usd" in told and f"remove {tmp_path}" in told
    state = Tally(spent={"a": 1.0})
    with pytest.raises(HaltError) as caught:
        state.affords(Limits(budget_usd=1.0), 0.1, NOW)
    assert "perhaps" not in str(caught.value)


def test_waiting_for_what_others_hold_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def ask() -> None:
        dead = await gate(tmp_path, Limits(budget_usd=1.0))
        await dead.admit(Cost(usd=0.9))
        one = await gate(tmp_path, Limits(budget_usd=1.0), "9-19.0001.jsonl", timeout_s=1.0)
        with pytest.raises(HaltError, match=r"\$0\.9000 by calls whose shard was killed"):
            await one.admit(Cost(usd=0.5))
        await one.close()
        await dead.close()

    asyncio.run(ask())
    [told] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "calls of 1 other shards may cost $0.9000" in told


def test_a_file_system_that_fails_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def ask() -> None:
        shared = await gate(tmp_path, Limits(rpm=60_000))

        failed = Counter[str]()

        def full(_step: Step, _chain: Chain) -> Tally:
            failed["full"] += 1
            raise OSError("no space left on device")

        monkeypatch.setattr(Step, "make", full)
        monkeypatch.setattr(shared_gate, "_POLL_S", 0.05)
        waiting = asyncio.create_task(shared.admit(Cost()))
        await until(lambda: failed.total() > 3)
        monkeypatch.undo()
        await asyncio.wait_for(waiting, 30)
        await shared.close()

    asyncio.run(ask())
    [told] = [record.getMessage() for record in caplog.records]
    assert "no space left on device" in told


def test_turns_that_nobody_takes_are_given_back(tmp_path: Path) -> None:
    async def ask() -> None:
        shared = await gate(tmp_path, Limits(budget_usd=1.0))
        asked = [asyncio.create_task(shared.admit(Cost(usd=0.5))) for _ in range(4)]
        await until(lambda: sum(task.done() for task in asked) >= 2)
        await asyncio.sleep(0.3)
        assert sum(task.done() for task in asked) == 2
        for task in asked:
            task.cancel()
        await shared.settle(asked[0].result(), Cost())
        await shared.settle(asked[1].result(), Cost(usd=0.25))
        await shared.admit(Cost(usd=0.7))
        await shared.close()

    asyncio.run(ask())
    left = Tally.from_bytes(Chain(tmp_path).look())
    assert left.spent == {"0-9.0001.jsonl": 0.25} and left.held["0-9.0001.jsonl"].usd == pytest.approx(0.7)


def _spend(directory: str, name: str, charged: Synchronized[float]) -> None:
    async def ask() -> None:
        shared = await SharedGate(Chain(Path(directory)), name, Limits(budget_usd=1.0), 0.3).open({})
        draw = random.Random(name)

        async def one() -> None:
            while True:
                turn = await shared.admit(Cost(usd=0.01))
                usd = draw.choice([0.0001, 0.001, 0.01])
                with charged:
                    charged.value += usd  # the server charges, whether the answer arrives or not
                await asyncio.sleep(draw.uniform(0, 0.05))
                await shared.settle(turn, Cost(usd=usd))

        try:
            await asyncio.gather(*(one() for _ in range(4)))
        except HaltError as error:
            assert error.cause == "budget"
        await shared.close()

    asyncio.run(ask())


@pytest.mark.slow
def test_no_more_than_the_budget_is_spent_whoever_is_killed(tmp_path: Path) -> None:
    charged = _SPAWN.Value("d", 0.0)
    draw, started, count = random.Random(1), time.monotonic(), 8
    running: list[SpawnProcess] = []
    while time.monotonic() - started < 240:
        running = [process for process in running if process.is_alive()]
        if count >= 20 and not running:
            break
        while len(running) < 8 and count < 20:
            count += 1
            running.append(_SPAWN.Process(target=_spend, args=(str(tmp_path), f"{count}-9.0001.jsonl", charged)))
            running[-1].start()
        time.sleep(draw.uniform(0.3, 0.6))
        if count < 20:
            victim = draw.choice(running)
            if charged.get_lock().acquire(timeout=1):  # its death must not take the test's own lock along
                assert victim.pid is not None
                os.kill(victim.pid, signal.SIGKILL)
                charged.get_lock().release()
    assert not running
    assert 0.5 < charged.value <= 1.0 + 1e-9
