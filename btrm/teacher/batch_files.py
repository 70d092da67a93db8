"""What has been sent in batches, on disk: a file before a batch is created, and another once its id is known.

`calls/batches/NAME.json` says which calls go into a batch; it is written first. `NAME.fate.json` says which id the API
gave it, or that there is no such batch. Neither is ever changed, and each is won by a link, so that whoever is killed
leaves one of three: nothing sent, perhaps sent (no fate yet: the API is asked), sent. Answers are not noted here: a row
is answered when a journal has it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self, cast

import orjson

from btrm.leases import live_owner
from btrm.publishing import win
from btrm.runs import StageRun
from btrm.teacher.base import Call, Form, Item, Layout, RowKey


@dataclass(frozen=True, slots=True)
class Asked:
    """A call in a batch, without its text. `attempt` counts the batches that it has been in; the first is 1."""

    items: tuple[Item, ...]
    sample: int
    layout: Layout
    form: Form
    request_hash: str
    attempt: int

    @classmethod
    def of(cls, call: Call, request_hash: str, attempt: int) -> Self:
        """Return what a batch's file says about a call."""
        return cls(call.items, call.sample, call.layout, call.form, request_hash, attempt)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """Return what `asdict` made of one."""
        given = dict(values)
        return cls(items=tuple(Item(**item) for item in given.pop("items")), **given)

    @property
    def keys(self) -> tuple[RowKey, ...]:
        """The rows of judgements.parquet that the answer will fill."""
        return tuple((item.label_id, item.side, self.sample) for item in self.items)


@dataclass(frozen=True, slots=True)
class Batch:
    """Calls that are sent together. `name` is drawn by chance; `at` is when they were to be sent, in s since 1970.

    `share` is whose calls they are; `holder` is the journal of the attempt that sent it, for which `most_usd`, all that
    it can cost, is held at the gate. `account` is a digest of where, and with which key, it was sent; empty: not known.
    """

    name: str
    share: str
    at: float
    holder: str
    most_usd: float
    asked: tuple[Asked, ...] = field(repr=False)
    account: str = ""


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a batch: the id that the API knows it by, or None where it was never taken."""

    id: str | None


class BatchFiles:
    """All batches of a stage, whichever share sent them."""

    def __init__(self, run: StageRun, directory: Path, shares: Path, share: str) -> None:
        self._run = run
        self.directory = directory
        self._shares = shares
        self.share = share

    def intend(
        self, asked: Sequence[Asked], holder: str, most_usd: float, account: Callable[[str], str] = lambda _: ""
    ) -> Batch:
        """Write down a batch that is about to be sent; `account` makes the digest for a batch's name."""
        name = uuid.uuid4().hex
        batch = Batch(name, self.share, time.time(), holder, most_usd, tuple(asked), account(name))
        self._win(f"{batch.name}.json", asdict(batch))
        return batch

    def settle(self, batch: Batch, batch_id: str | None) -> str | None:
        """Write down what became of a batch; return what stands, which another may have written before."""
        self._win(f"{batch.name}.fate.json", {"id": batch_id})
        fate = self.fate(batch)
        assert fate is not None, f"{batch.name}: its fate was written, and is gone"
        return fate.id

    def fate(self, batch: Batch) -> Fate | None:
        """Return what became of a batch, None while nobody has said."""
        try:
            return Fate(**orjson.loads((self.directory / f"{batch.name}.fate.json").read_bytes()))
        except FileNotFoundError:
            return None

    def known(self) -> frozenset[str]:
        """Return the ids that are some batch's."""
        fates = [Fate(**orjson.loads(path.read_bytes())) for path in self.directory.glob("*.fate.json")]
        return frozenset(fate.id for fate in fates if fate.id is not None)

    def sender_lives(self, batch: Batch) -> bool:
        """Say whether somebody else is perhaps just sending a batch."""
        return batch.share != self.share and live_owner(self._shares / batch.share) is not None

    def batches(self) -> Iterator[Batch]:
        """Yield all batches, sent or not, in no order."""
        for path in self.directory.glob("*.json"):
            if not path.name.endswith(".fate.json"):
                values = cast("dict[str, Any]", orjson.loads(path.read_bytes()))
                yield Batch(asked=tuple(Asked.read(asked) for asked in values.pop("asked")), **values)

    def _win(self, name: str, value: Mapping[str, Any]) -> None:
        scratch = self._run.scratch(name)
        scratch.write_bytes(orjson.dumps(value))
        win(scratch, self.directory / name)
