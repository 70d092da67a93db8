"""What an API's batch mode has to offer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from typing import Protocol

from btrm.teacher.base import Call, Reply, RequestError, TransientError
from btrm.teacher.batch_files import Batch


@dataclass(frozen=True, slots=True)
class Look:
    """How far a batch is; `progress` is for people."""

    ended: bool
    progress: str


GONE = Look(True, "gone")  # the API knows no such batch
Result = tuple[int, Reply | TransientError | RequestError]  # a call's place in its batch, and what became of it


class BatchApi(Protocol):
    """An API's batches. Everything raises TransientError, RequestError or HaltError and never tries again by itself."""

    most_calls: int
    most_bytes: int

    def bytes_of(self, call: Call) -> int:
        """Return what a call adds to a batch's size."""
        ...

    async def create(self, name: str, calls: list[Call]) -> str:
        """Create a batch and return its id; `name` and a call's place in it must be seen in its results."""
        ...

    async def find(self, batch: Batch, known: Collection[str]) -> str | None:
        """Return the id of a batch that was perhaps created, None where there is none.

        `known` are other batches' ids. Raises TransientError too while it cannot be told.
        """
        ...

    async def look(self, batch_id: str) -> Look:
        """Say how far a batch is; GONE where there is none."""
        ...

    def results(self, name: str, batch_id: str) -> AsyncIterator[Result]:
        """Yield the results of a batch that has ended, in any order; what has none is passed over."""
        ...

    async def close(self) -> None:
        """Give connections back."""
        ...
