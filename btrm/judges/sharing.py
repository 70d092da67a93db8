"""An element's work: its own share, and then rows of other shares that nobody has begun.

What is asked is claimed first. A share's owner goes through it from the front; whoever helps it comes from the back, so
that they meet. Help begins on the model that is loaded, and no model is loaded before a part of it is claimed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Protocol

from btrm.judges.ask import Asking, Chunk
from btrm.judges.base import Judge
from btrm.judges.cells import Cell
from btrm.judges.engine import Engine
from btrm.leases import Fenced
from btrm.stopping import Stopped, safe_point
from btrm.work import Pool, Ranges, Unit, overlap

_LOG = logging.getLogger(__name__)
_LOOK_S = 1.0
Todo = Sequence[tuple[Cell, Ranges]]


class Grid(Protocol):
    """What sharing needs of a grid."""

    def todo(self, units: Sequence[Unit]) -> Todo:
        """Return what the units ask and nobody has done by now, the cells of one model together."""
        ...

    def asking(self, todo: Todo) -> Asking:
        """Return what asks about these rows."""
        ...

    def model(self, cell: Cell) -> str:
        """Return the model that a cell needs."""
        ...

    def open(self, model: str, todo: Todo) -> AbstractContextManager[Engine]:
        """Load a model with room for the adapters of these cells."""
        ...

    def judge(self, engine: Engine, cell: Cell, asking: Asking) -> Judge:
        """Return the judge of a cell on a loaded model."""
        ...


@dataclass(frozen=True, slots=True)
class Claimed:
    """Chunks that are ours to ask about now."""

    asking: Asking
    chunks: list[Chunk]


@dataclass(slots=True)
class Sharing:
    """One element's way through the work: its own units, of a pool that others work on too (None: it is alone)."""

    grid: Grid
    units: Sequence[Unit]
    pool: Pool | None
    helped: int = 0

    def run(self) -> Iterator[int]:
        """Do the own share and help; yield the pairs of each commit. At the end the own share is done, by whomever."""
        todo = self.grid.todo(self.units)
        helping = False
        while todo or not helping:
            try:
                yield from self._models(todo, help_too=not helping)
            except Exception as error:
                if helping or not self.helped or isinstance(error, Fenced | Stopped):
                    raise
                _LOG.warning("helping others failed, which is left to them: %s", error)
            helping = True
            if todo := self.grid.todo(self.units):  # others have begun these; should they die, they are ours again
                safe_point()
                time.sleep(_LOOK_S)
        if self.helped:
            _LOG.info("judged %d rows of other shares", self.helped)

    def _models(self, todo: Todo, *, help_too: bool) -> Iterator[int]:
        asking = self.grid.asking(todo)
        by_model = {model: list(tasks) for model, tasks in groupby(todo, key=lambda task: self.grid.model(task[0]))}
        last = next(reversed(by_model), None)
        for model, tasks in by_model.items():
            own = self._claimed(asking, tasks)
            after = self._help_with(model) if help_too and model == last else iter(())
            yield from self._ask(model, tasks, chain(own, after))
        if help_too:
            for model in dict.fromkeys(self.grid.model(cell) for tasks in self._left() for cell, _ in tasks):
                yield from self._ask(model, (), self._help_with(model))

    def _ask(self, model: str, tasks: Todo, batches: Iterator[Claimed]) -> Iterator[int]:
        """Ask about batches of one model; it is not loaded where there are none."""
        if (first := next(batches, None)) is None:
            return
        cells = tasks or [(chunk.cell, ()) for chunk in first.chunks]
        with self.grid.open(model, cells) as engine:
            safe_point()  # a model takes a while to load
            now: tuple[object, ...] = ()
            judge: Judge | None = None
            said = ""
            for batch in chain([first], batches):
                cell = batch.chunks[0].cell
                if said != (said := _who_and_what(batch)):
                    _LOG.info("judging: %s", said)
                if judge is None or now != (cell.judge, cell.prompt, cell.dataset, id(batch.asking)):
                    now = (cell.judge, cell.prompt, cell.dataset, id(batch.asking))
                    judge = self.grid.judge(engine, cell, batch.asking)
                yield batch.asking.answer(judge, batch.chunks)
                safe_point()

    def _claimed(self, asking: Asking, tasks: Todo, *, backwards: bool = False) -> Iterator[Claimed]:
        subjects = [list(of_one) for _, of_one in groupby(tasks, key=lambda task: (task[0].judge, task[0].prompt))]
        for of_subject in reversed(subjects) if backwards else subjects:
            for chunks in asking.claimed(of_subject, backwards=backwards):
                yield Claimed(asking, chunks)

    def _help_with(self, model: str) -> Iterator[Claimed]:
        for tasks in self._left():
            mine = [task for task in tasks if self.grid.model(task[0]) == model]
            for batch in self._claimed(self.grid.asking(mine), mine, backwards=True) if mine else ():
                self.helped += sum(len(chunk.numbers) for chunk in batch.chunks)
                yield batch

    def _left(self) -> Iterator[Todo]:
        """Yield what is missing of each other share, the next element's first, cut as its owner cuts it."""
        if self.pool is None or not (left := self.grid.todo(self.pool.units)):
            return
        for other in self.pool.others():
            asked = {unit.name: unit.missing for unit in other}
            found = [(cell, overlap(asked[cell.name], holes)) for cell, holes in left if cell.name in asked]
            if tasks := [(cell, holes) for cell, holes in found if holes]:
                yield tasks


def _who_and_what(batch: Claimed) -> str:
    """Name the judge of a batch and the data sets that its pairs are of."""
    cell, datasets = batch.chunks[0].cell, dict.fromkeys(str(chunk.cell.dataset) for chunk in batch.chunks)
    return f"{cell.judge} with {cell.prompt.name} on {', '.join(datasets)}"
