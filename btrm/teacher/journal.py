"""The journal of calls: every answer is on disk, raw, before it counts.

One file an attempt at a share, `calls/FIRST-LAST.N.jsonl`, that nobody else writes to; a line a call. What is answered
is read from all of them by row key, so a rerun with other shards asks for nothing twice.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import orjson

from btrm.config import ConfigError
from btrm.teacher.base import Call, Fault, FinishReason, Form, Item, Layout, Reply, RowKey, Usage

FORGOTTEN = "forgotten.jsonl"
_LOG = logging.getLogger(__name__)
_NAME = re.compile(r"\d+-\d+\.\d+\.jsonl")


@dataclass(frozen=True, slots=True)
class Entry:
    """A line: a call that has ended, with everything that its rows are made of.

    `usd` is None where no price is known. `latency_s` is that of the attempt that was answered, `attempts` counts all,
    `at` is the time of the answer (seconds since 1970). `faults` are the attempts that were not answered.
    """

    items: tuple[Item, ...]
    sample: int
    layout: Layout
    form: Form
    request_hash: str
    text: str
    finish_reason: FinishReason
    usage: Usage
    usd: float | None
    latency_s: float
    attempts: int
    at: float
    raw: Any = None
    faults: tuple[Fault, ...] = ()

    @property
    def keys(self) -> tuple[RowKey, ...]:
        """The rows that this answer fills."""
        return tuple((item.label_id, item.side, self.sample) for item in self.items)

    def to_line(self) -> bytes:
        """Return the line, with its end. Half of a surrogate pair, which UTF-8 cannot hold, is written as `?`."""
        try:
            return orjson.dumps(asdict(self), option=orjson.OPT_APPEND_NEWLINE)
        except TypeError:
            return json.dumps(asdict(self), ensure_ascii=False).encode("utf-8", "replace") + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Entry:
        """Read a line. Raises ValueError (orjson.JSONDecodeError) or KeyError where it is none."""
        values = cast("dict[str, Any]", orjson.loads(line))
        items = tuple(Item(**item) for item in values.pop("items"))
        faults = tuple(values.pop("faults", ()))
        return cls(items=items, usage=Usage(**values.pop("usage")), faults=faults, **values)


def entry_of(
    call: Call,
    request_hash: str,
    reply: Reply,
    usd: float | None,
    latency_s: float,
    attempts: int,
    at: float,
    faults: Sequence[Fault] = (),
) -> Entry:
    """Return the line of a call that has ended."""
    return Entry(
        items=call.items,
        sample=call.sample,
        layout=call.layout,
        form=call.form,
        request_hash=request_hash,
        text=reply.text,
        finish_reason=reply.finish_reason,
        usage=reply.usage,
        usd=usd,
        latency_s=round(latency_s, 4),
        attempts=attempts,
        at=round(at, 3),
        raw=dict(reply.raw),
        faults=tuple(faults),
    )


class Journal:
    """An open journal. Lines that come while the disk is busy are written, and flushed to it, together."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o666)
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "journal")

    async def write(self, entry: Entry) -> None:
        """Return when the line is on disk. Raises OSError where it could not be."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((entry.to_line(), done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_waiting())
        await done

    async def _write_waiting(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            lines = b"".join(line for line, _ in batch)
            error: OSError | None = None
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._append, lines)
            except OSError as problem:
                error = problem
            for _, done in batch:
                if done.done():
                    continue
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(error)

    def _append(self, lines: bytes) -> None:
        """Write all of it or raise; what a full disk left half-written is cut off again, so that lines stay whole."""
        before = os.fstat(self._file).st_size
        try:
            view = memoryview(lines)
            while view:
                view = view[os.write(self._file, view) :]
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, before)
            raise

    def close(self) -> None:
        """Close the file; every line that was waited for is on disk."""
        self._thread.shutdown()
        os.close(self._file)


def read_journal(path: Path) -> Iterator[Entry]:
    """Yield the lines of a journal. A torn last line is passed over: its writer died, or is still writing it.

    Raises ConfigError with file:line for any other line that cannot be read.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                entry = _parsed(line)
            except (ValueError, KeyError, TypeError) as error:
                if not file.read(1):  # (the loop reads by lines, and this one was the last)
                    return
                raise ConfigError(
                    f"{path}:{number}: not a line of this journal ({error}); move the file away to ask again"
                ) from None
            yield entry


def _parsed(line: bytes) -> Entry:
    if not line.endswith(b"\n"):
        raise ValueError("the line does not end")
    return Entry.from_line(line)


def repair(path: Path) -> int:
    """Cut off a torn last line, of a journal whose writer is dead; return its bytes and say so. 0: nothing was torn.

    A power cut may leave bytes that end as a line and are none.
    """
    data = path.read_bytes()
    start = data.rfind(b"\n", 0, -1) + 1
    try:
        if data:
            _parsed(data[start:])
        return 0
    except (ValueError, KeyError, TypeError):
        os.truncate(path, start)
        torn = len(data) - start
        _LOG.warning("%s: cut off %d bytes of a line that was never finished; its call is asked again", path, torn)
        return torn


Forgotten = tuple[str, float, str, int, int]  # of an answer: request hash and time; and of the row: its key


def forgotten(directory: Path) -> set[Forgotten]:
    """Return the rows of answers that do not count any more, of the journals in a directory."""
    try:
        lines = (directory / FORGOTTEN).read_bytes().splitlines()
    except FileNotFoundError:
        return set()
    return {cast("Forgotten", tuple(orjson.loads(line))) for line in lines}


def earlier(forgotten: Iterable[Forgotten]) -> Counter[RowKey]:
    """Return how many answers of each row do not count any more."""
    return Counter((label, side, sample) for _, _, label, side, sample in forgotten)


def journals(directory: Path) -> list[Path]:
    """Return the journals of a stage, in the order in which their answers count: the first that has a row wins."""
    return sorted(path for path in directory.glob("*.jsonl") if _NAME.fullmatch(path.name))
