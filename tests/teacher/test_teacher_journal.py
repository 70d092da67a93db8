from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from btrm.config import ConfigError
from btrm.teacher.base import Call, Item, Reply, Usage
from btrm.teacher.journal import Entry, Journal, entry_of, journals, read_journal, repair


def entry(number: int) -> Entry:
    items = tuple(Item(f"pair{number}", f"pair{number}", side, f"mark{side}", side == 0) for side in (0, 1))
    call = Call(items, 2, "pairwise", "schema", "", "", "", {"type": "object"}, 0)
    reply = Reply("grün \x00 \U0001f600", "stop", Usage(5, 4, 3, 2), {"id": number})
    return entry_of(call, f"hash{number}", reply, 0.25, 1.5, 2, 1000.0, ["overloaded"])


def written(path: Path, count: int = 3) -> Path:
    path.write_bytes(b"".join(entry(number).to_line() for number in range(count)))
    return path


def test_a_line_comes_back_as_it_was() -> None:
    assert Entry.from_line(entry(7).to_line()) == entry(7)
    assert entry(7).keys == (("pair7", 0, 2), ("pair7", 1, 2))


def test_what_utf8_cannot_hold_is_no_reason_to_lose_an_answer() -> None:
    odd = replace(entry(7), text="half \ud83d a pair, grün", raw={"number": 2**70, "text": "\udc00"})
    read = Entry.from_line(odd.to_line())
    assert read.text == "half ? a pair, grün" and read.items == odd.items


@pytest.mark.parametrize(
    "torn",
    [entry(3).to_line()[:40], entry(3).to_line()[:-1], b"\0" * 200, b"\0" * 199 + b"\n", b'{"items": []}\n', b"\n"],
    ids=["half", "no end", "nul", "nul and end", "no entry", "empty"],
)
def test_a_torn_last_line_is_cut_off_and_reported_once(
    tmp_path: Path, torn: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path / "0-9.0001.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    assert list(read_journal(path)) == [entry(number) for number in range(3)]
    with caplog.at_level(logging.WARNING):
        assert repair(path) == len(torn)
        assert repair(path) == 0
    assert path.read_bytes() == whole
    assert len(caplog.records) == 1 and str(path) in caplog.text


@pytest.mark.parametrize("data", [b"", b'{"half": ', b"\0" * 5000])
def test_a_journal_without_a_whole_line_is_empty(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "0-9.0001.jsonl"
    path.write_bytes(data)
    assert list(read_journal(path)) == []
    assert repair(path) == len(data) and path.read_bytes() == b""


def test_a_bad_line_in_the_middle_is_an_error_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "0-9.0001.jsonl"
    path.write_bytes(entry(0).to_line() + b"not json\n" + entry(1).to_line())
    with pytest.raises(ConfigError, match=r"0-9\.0001\.jsonl:2: not a line of this journal"):
        list(read_journal(path))


def test_lines_that_come_together_are_flushed_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushes: list[int] = []
    monkeypatch.setattr("os.fsync", flushes.append)

    async def write() -> None:
        journal = Journal(tmp_path / "0-9.0001.jsonl")
        await asyncio.gather(*(journal.write(entry(number)) for number in range(500)))
        journal.close()

    asyncio.run(write())
    assert list(read_journal(tmp_path / "0-9.0001.jsonl")) == [entry(number) for number in range(500)]
    assert 1 <= len(flushes) < 50


def test_no_two_write_to_one_journal(tmp_path: Path) -> None:
    Journal(tmp_path / "0-9.0001.jsonl").close()
    with pytest.raises(FileExistsError):
        Journal(tmp_path / "0-9.0001.jsonl")


def test_only_journals_are_journals(tmp_path: Path) -> None:
    for name in ("0000010-0000020.0001.jsonl", "0000000-0000010.0002.jsonl", "forgotten.jsonl", "0-9.0001.jsonl.old"):
        written(tmp_path / name, 1)
    assert [path.name for path in journals(tmp_path)] == ["0000000-0000010.0002.jsonl", "0000010-0000020.0001.jsonl"]
