from __future__ import annotations

import asyncio
import errno
import math
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from batch_stage import do_share, entries, rows, write_toy

from btrm.leases import Fenced, Lease, holding
from btrm.stopping import Stopped, forget
from btrm.teacher import drive
from btrm.teacher.base import Call, HaltError, Item, Reply, RequestError, TransientError, Usage
from btrm.teacher.config import TeacherConfig
from btrm.teacher.drive import Asker
from btrm.teacher.gate import Cost, OpenGate, Turn
from btrm.teacher.journal import Entry, Journal, read_journal

Answer = Callable[[Call, int], Reply]  # of a call, and how often it has been asked


def calls(count: int, contexts: int = 10**9) -> Iterator[Call]:
    for number in range(count):
        item = Item(f"pair{number}", f"pair{number}", 0, "m")
        yield Call((item,), 0, "pointwise", "tags", "", f"context {number % contexts}", str(number), None, 0)


class Backend:
    """Answers after `latency_s`; `answer` may raise."""

    def __init__(self, answer: Answer, latency_s: float = 0.0) -> None:
        self.answer = answer
        self.latency_s = latency_s
        self.asked: Counter[str] = Counter()
        self.order: list[Call] = []
        self.under_way = self.most_under_way = 0

    async def ask(self, call: Call) -> Reply:
        self.asked[call.question] += 1
        self.order.append(call)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(self.latency_s)
            return self.answer(call, self.asked[call.question])
        finally:
            self.under_way -= 1

    async def close(self) -> None:
        return


class Held(Backend):
    """Answers nobody until it is let go."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.let_go = asyncio.Event()

    async def ask(self, call: Call) -> Reply:
        self.asked[call.question] += 1
        await self.let_go.wait()
        return self.answer(call, self.asked[call.question])


class Books(OpenGate):
    """A gate that lets all pass and keeps book."""

    def __init__(self) -> None:
        self.admitted = 0
        self.settled: list[Cost] = []
        self.pauses: list[float] = []
        self.halted: HaltError | None = None

    async def admit(self, most: Cost) -> Turn:
        self.admitted += 1
        return Turn(most)

    async def settle(self, turn: Turn, spent: Cost) -> None:
        assert turn.most == Cost(100, 0.5)
        self.settled.append(spent)

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def halt(self, error: HaltError) -> None:
        self.halted = self.halted or error

    def check(self) -> None:
        if self.halted is not None:
            raise self.halted


def fine(call: Call, _count: int) -> Reply:
    return Reply(f"answer to {call.question}", "stop", Usage(10, 5))


def asker(backend: Backend, path: Path, concurrency: int = 8, led: bool = False) -> Asker:
    return Asker(
        backend=backend,
        gate=Books(),
        journal=Journal(path),
        concurrency=concurrency,
        max_attempts=3,
        timeout_s=60.0,
        most=lambda _: Cost(100, 0.5),
        usd=lambda usage: usage.prompt * 0.01,
        request_hash=lambda call: call.question,
        led=lambda _: led,
    )


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive, "_FIRST_BACKOFF_S", 0.02)
    monkeypatch.setattr(drive, "_FULL_S", 0.05)
    monkeypatch.setattr(drive, "_CHECK_S", 0.1)


def ask(asker: Asker, some: Iterator[Call]) -> list[Entry]:
    async def all_of_them() -> list[Entry]:
        try:
            return [entry async for entries in asker.run(some) for entry in entries]
        finally:
            await asker.close()

    return asyncio.run(all_of_them())


def books(asker: Asker) -> Books:
    assert isinstance(asker.gate, Books)
    return asker.gate


def test_every_call_is_answered_once_and_on_disk(tmp_path: Path) -> None:
    backend = Backend(fine)
    ours = asker(backend, tmp_path / "0-1.1.jsonl")
    entries = ask(ours, calls(300))
    assert sorted(entry.items[0].pair_id for entry in entries) == sorted(f"pair{n}" for n in range(300))
    assert set(backend.asked.values()) == {1} and backend.most_under_way <= 8
    assert {e.request_hash for e in read_journal(tmp_path / "0-1.1.jsonl")} == {str(n) for n in range(300)}
    assert books(ours).settled == [Cost(15, 0.1)] * 300


def test_failures_that_may_pass_are_tried_again_and_counted(tmp_path: Path) -> None:
    def answer(call: Call, count: int) -> Reply:
        number = int(call.question)
        if number % 10 == 0 and count == 1:
            raise TransientError("busy", "overloaded")
        if number % 10 == 1 and count < 3:
            raise TransientError("slower", "rate_limited", 0.01)
        if number % 10 == 2:
            raise TransientError("gone", "connection")
        if number % 10 == 3:
            raise RequestError("no such thing", "prompt_too_long")
        return fine(call, count)

    backend = Backend(answer)
    ours = asker(backend, tmp_path / "0-1.1.jsonl")
    entries = {int(entry.request_hash): entry for entry in ask(ours, calls(100))}
    assert len(entries) == 100
    assert (entries[0].faults, entries[0].attempts, entries[0].finish_reason) == (("overloaded",), 2, "stop")
    assert (entries[1].faults, entries[1].attempts) == (("rate_limited", "rate_limited"), 3)
    assert (entries[2].faults, entries[2].attempts, entries[2].finish_reason) == (("connection",) * 3, 3, "error")
    assert (entries[3].attempts, entries[3].finish_reason) == (1, "prompt_too_long")
    assert sum(backend.asked.values()) == 100 + 10 + 20 + 20
    # Each turn is settled; a lost connection may have been charged all the same.
    assert len(books(ours).settled) == books(ours).admitted == 150
    assert books(ours).settled.count(Cost(100, 0.5)) == 30
    assert books(ours).pauses == [0.01] * 20


def test_no_answer_in_time_is_a_fault(tmp_path: Path) -> None:
    backend = Backend(fine, latency_s=5)
    ours = asker(backend, tmp_path / "0-1.1.jsonl")
    ours.timeout_s, ours.max_attempts = 0.05, 2
    (entry,) = ask(ours, calls(1))
    assert entry.faults == ("timeout", "timeout") and entry.finish_reason == "error" and "0.05 s" in entry.text


def test_who_may_not_go_on_stops_all_and_keeps_what_was_under_way(tmp_path: Path) -> None:
    def answer(call: Call, count: int) -> Reply:
        if call.question == "20":
            raise HaltError("no such key", "auth")
        return fine(call, count)

    backend = Backend(answer, latency_s=0.05)
    ours = asker(backend, tmp_path / "0-1.1.jsonl")
    got: list[Entry] = []

    async def all_of_them() -> None:
        async for some in ours.run(calls(1000)):
            got.extend(some)

    with pytest.raises(HaltError, match="no such key"):
        asyncio.run(all_of_them())
    sent = set(backend.asked) - {"20"}
    assert len(sent) < 60 and {entry.request_hash for entry in got} == sent
    assert {entry.request_hash for entry in read_journal(tmp_path / "0-1.1.jsonl")} == sent
    assert len(books(ours).settled) == books(ours).admitted


def test_others_word_ends_a_share_whose_calls_are_under_way(tmp_path: Path) -> None:
    backend = Backend(fine, latency_s=0.4)
    ours = asker(backend, tmp_path / "0-1.1.jsonl")

    async def all_of_them() -> None:
        run = ours.run(calls(10**6), wake_s=0.05)
        await anext(run)
        books(ours).halted = HaltError("another's word", "quota")
        async for _ in run:
            pass

    with pytest.raises(HaltError, match="another's word"):
        asyncio.run(all_of_them())
    assert 8 <= len(backend.asked) < 8 * 5


def test_a_stop_keeps_what_was_under_way(tmp_path: Path) -> None:
    backend = Held(fine)
    ours = asker(backend, tmp_path / "0-1.1.jsonl")

    async def some() -> None:
        async with aclosing(ours.run(calls(1000), wake_s=0.05)) as run:
            await anext(run)
            backend.let_go.set()
        await ours.close()

    asyncio.run(some())
    assert len(backend.asked) == 8
    assert {entry.request_hash for entry in read_journal(tmp_path / "0-1.1.jsonl")} == set(backend.asked)


def test_a_fenced_attempt_sends_nothing_more(tmp_path: Path) -> None:
    backend = Backend(fine, latency_s=0.02)
    ours = asker(backend, tmp_path / "0-1.1.jsonl")
    directory = tmp_path / "share"
    (directory / ".leases").mkdir(parents=True)
    (directory / ".leases" / "1").touch()

    async def all_of_them() -> None:
        run = ours.run(calls(10**6), wake_s=0.05)
        await anext(run)
        (directory / ".leases" / "2").write_text('{"owner": "job 2"}')
        async for _ in run:
            pass

    with holding(Lease(directory, 1)), pytest.raises(Fenced, match="job 2"):
        asyncio.run(all_of_them())
    assert len(backend.asked) < 8 * 30


def test_the_first_of_a_context_is_answered_before_the_others_go(tmp_path: Path) -> None:
    backend = Backend(fine, latency_s=0.01)
    some = sorted(calls(60, contexts=6), key=lambda call: call.context)
    assert len(ask(asker(backend, tmp_path / "0-1.1.jsonl", 16, led=True), iter(some))) == 60
    assert backend.most_under_way == 16 and set(backend.asked.values()) == {1}
    assert [call.context for call in backend.order[:6]] == [f"context {number}" for number in range(6)]


def test_a_disk_that_is_full_for_a_moment_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Backend(fine, latency_s=0.01)
    ours = asker(backend, tmp_path / "0-1.1.jsonl")
    fills = time.monotonic() + 0.05
    write = os.write

    def full(file: int, data: memoryview) -> int:
        if fills < time.monotonic() < fills + 0.3:
            write(file, data[:7])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data)

    monkeypatch.setattr(os, "write", full)
    assert len(ask(ours, calls(400))) == 400
    assert set(backend.asked.values()) == {1}
    assert len(list(read_journal(tmp_path / "0-1.1.jsonl"))) == 400


def test_a_disk_that_stays_full_ends_the_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive, "_DRAIN_S", 0.3)
    backend = Backend(fine)
    ours = asker(backend, tmp_path / "0-1.1.jsonl")
    write = ours.journal._append  # pyright: ignore[reportPrivateUsage]

    def full(lines: bytes) -> None:
        if os.fstat(ours.journal._file).st_size > 10_000:  # pyright: ignore[reportPrivateUsage]
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(lines)

    monkeypatch.setattr(ours.journal, "_append", full)
    with pytest.raises(OSError, match="No space left"):
        ask(ours, calls(1000))
    written = list(read_journal(tmp_path / "0-1.1.jsonl"))
    assert len(backend.asked) - 2 * 8 <= len(written) < 100


def test_an_answer_of_the_last_moment_is_handed_over(tmp_path: Path) -> None:
    async def slow_reader(ours: Asker) -> int:
        run = ours.run(calls(40), wake_s=0.01)
        count = 0
        while (entries := await anext(run, None)) is not None:
            count += len(entries)
            await asyncio.sleep(random.uniform(0, 0.08))  # meanwhile the last ones may arrive
        return count

    for number in range(5):
        ours = asker(Backend(fine, 0.01), tmp_path / f"0-1.{number}.jsonl", concurrency=40)
        assert asyncio.run(slow_reader(ours)) == 40


def test_thousands_at_a_time_and_quickly(tmp_path: Path) -> None:
    backend = Backend(fine, latency_s=0.2)
    ours = asker(backend, tmp_path / "0-1.1.jsonl", concurrency=4096)
    ours.timeout_s = math.inf
    started = time.process_time()
    assert len(ask(ours, calls(8000))) == 8000
    assert backend.most_under_way == 4096
    took, started = time.process_time() - started, time.process_time()
    asyncio.run(ask_all(Backend(fine)))
    assert took < max(4.0, 10 * (time.process_time() - started))  # 2,000 a second, where the machine can


async def ask_all(backend: Backend) -> None:
    await asyncio.gather(*(backend.ask(call) for call in calls(8000)))


def refused(_call: Call, _count: int) -> Reply:
    raise RequestError("400 temperature: Extra inputs are not permitted")


def test_calls_that_all_fail_end_the_asking_and_are_asked_again(tmp_path: Path) -> None:
    backend = Backend(refused)
    ours = asker(backend, tmp_path / "0-1.1.jsonl")
    with pytest.raises(HaltError, match="20 calls in a row failed, the last one with: 400 temperature") as caught:
        ask(ours, calls(10_000))
    assert caught.value.cause == "failing" and len(backend.order) < 40
    assert not list(read_journal(tmp_path / "0-1.1.jsonl")) and set(books(ours).settled) == {Cost()}
    assert len(ask(asker(Backend(fine), tmp_path / "0-1.2.jsonl"), calls(50))) == 50


def test_failures_between_answers_are_their_calls_own(tmp_path: Path) -> None:
    def some(call: Call, _count: int) -> Reply:
        return fine(call, 1) if int(call.question) % 10 == 0 else refused(call, 1)

    entries = ask(asker(Backend(some), tmp_path / "0-1.1.jsonl", concurrency=1), calls(205))
    assert Counter(entry.finish_reason for entry in entries) == {"error": 184, "stop": 21}
    few = ask(asker(Backend(refused), tmp_path / "1-2.1.jsonl"), calls(19))  # a rest that nobody will answer
    assert (
        [entry.finish_reason for entry in few]
        == ["error"] * 19
        == [entry.finish_reason for entry in read_journal(tmp_path / "1-2.1.jsonl")]
    )


def test_an_outage_is_no_calls_own_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive, "_LONGEST_BACKOFF_S", 0.05)
    monkeypatch.setattr(drive, "_SILENT_S", 0.0)

    def some(call: Call, count: int) -> Reply:
        if 100 < backend.asked.total() < 200:
            raise TransientError("502 Bad Gateway", "server_error")
        return fine(call, count)

    backend = Backend(some, latency_s=0.01)
    entries = ask(asker(backend, tmp_path / "0-1.1.jsonl"), calls(400))
    assert {entry.finish_reason for entry in entries} == {"stop"} and len(entries) == 400
    assert max(entry.attempts for entry in entries) > 3, "more than a call has by itself"


@pytest.mark.parametrize("answer", [1, 2, 3, 7, 8, 15, 16])
def test_an_interrupt_stops_the_stage_wherever_the_event_loop_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: int
) -> None:
    write, seen = Journal.write, [0]

    async def interrupting(journal: Journal, entry: Entry) -> None:
        await write(journal, entry)
        seen[0] += 1
        if seen[0] == answer:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Journal, "write", interrupting)
    monkeypatch.setattr(drive, "_GATHER_S", 0.0)
    write_toy(tmp_path, 8)
    config = TeacherConfig(pairs=str(tmp_path / "pairs.parquet"), n_pairs=8, concurrency=2)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(Stopped, match="interrupted"):
            do_share(config, tmp_path)
    finally:
        signal.signal(signal.SIGINT, handler)
        forget()
    assert len(entries(tmp_path)) >= answer
    do_share(config, tmp_path)
    assert len(entries(tmp_path)) == len(rows(config, tmp_path)) == 16  # each asked once
