"""The right log: of the newest attempt, of the step that runs or failed, of one cell."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from btrm.config import ConfigError, nearest
from btrm.launch.submission import Attempt, ElementState, PlannedStep, Submission, submissions
from btrm.operate.status import is_complete
from btrm.train.attempt import FAILURE_LOG
from btrm.work import read_units, share

_POLL_S = 0.5
_TRAINER_LOGS = ("logs/trainer.log", FAILURE_LOG)


@dataclass(frozen=True, slots=True)
class Log:
    """A log file, whose it is, and what other logs there are of the same work."""

    path: Path
    what: str
    others: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """Which log is wanted. `cell`: an array's element by number, or a judge's cell by name. `node`: of several."""

    root: Path
    step: str | None = None
    cell: str | None = None
    node: int = 0


def find_log(question: Question) -> Log:
    """Return the log of the newest attempt that the question fits; raise ConfigError where there is none."""
    state, submission = _choose(question)
    last = state.last
    assert last is not None
    path = submission.logs / f"{last.job}_{question.node}_log.out"
    if not path.exists():
        written = sorted(p.name for p in submission.logs.glob(f"{last.job}_*_log.out"))
        raise ConfigError(f"{path}: no such log; of this job there are: {', '.join(written) or 'none'}")
    folder = question.root / state.step.removesuffix(".commit")
    others = tuple(folder / name for name in _TRAINER_LOGS if (folder / name).exists())
    return Log(path, _words(state, last), others)


def read(log: Log) -> Iterator[str]:
    """Yield what a log holds now, a block at a time."""
    with log.path.open(errors="replace") as file:
        while block := file.read(1 << 16):
            yield block


def follow(question: Question, log: Log) -> Iterator[str]:
    """Yield what a log holds and what is added to it, on through later attempts, until nothing more will come."""
    while True:
        yield from _until_next(question, log)
        newer = find_log(question)
        if newer.path == log.path:
            return
        log = newer
        yield f"==> {log.path} ({log.what})\n"


def _until_next(question: Question, log: Log) -> Iterator[str]:
    """Yield a log's text until another attempt writes elsewhere, or the run goes no further."""
    with log.path.open(errors="replace") as file:
        while True:
            over = _over(question) or find_log(question).path != log.path
            while block := file.read(1 << 16):
                yield block
            if over:
                return
            time.sleep(_POLL_S)


def _over(question: Question) -> bool:
    known = submissions(question.root)
    if known[-1].stopped() is not None:
        return True
    steps = [step for step in known[-1].plan().steps if question.step in {None, step.name}]
    return all(is_complete(step, question.root) for step in steps)


def _choose(question: Question) -> tuple[ElementState, Submission]:
    """Return the element whose log is wanted: of those asked for one that runs, else one that failed, else the last."""
    known = submissions(question.root)
    if not known:
        raise ConfigError(f"{question.root}: no submission here; a stage's own log is STAGE/logs/trainer.log")
    steps = {step.name for submission in known for step in submission.plan().steps}
    if question.step is not None and question.step.removesuffix(".commit") not in steps:
        raise ConfigError(f"step {question.step!r}: no such step{nearest(question.step, steps)}")
    for submission in reversed(known):
        states = [state for state in submission.states() if state.last and _fits(state, submission, question)]
        if states:
            return max(states, key=_rank), submission
    where = " ".join(filter(None, [question.step, f"cell {question.cell}" if question.cell else ""])) or "any step"
    raise ConfigError(f"{question.root}: nothing of {where} has begun; see: btrm status {question.root}")


def _fits(state: ElementState, submission: Submission, question: Question) -> bool:
    if question.step is not None and state.step.removesuffix(".commit") != question.step.removesuffix(".commit"):
        return False
    if question.step is not None and question.step.endswith(".commit") and not state.step.endswith(".commit"):
        return False
    if question.cell is None:
        return True
    if state.step.endswith(".commit"):
        return False
    if question.cell.isdecimal():
        return state.element == int(question.cell)
    step = submission.plan().step(state.step)
    return state.element in _elements_of(question.cell, step, submission)


def _elements_of(cell: str, step: PlannedStep, submission: Submission) -> list[int]:
    """Return the elements whose shares hold rows of a cell."""
    split = submission.split(step.name)
    if step.elements is None or not split.exists():
        return []
    units = read_units(split)
    wanted = {unit.name for unit in units if cell in (unit.name, unit.name.partition("@")[0])}  # on any data set
    if not wanted:
        raise ConfigError(f"--cell {cell}: no such cell in {step.name}{nearest(cell, [u.name for u in units])}")
    shares = ((element, share(units, element, step.elements)) for element in range(step.elements))
    return [element for element, mine in shares if any(unit.name in wanted for unit in mine)]


def _rank(state: ElementState) -> tuple[int, float]:
    last = state.last
    assert last is not None
    return {"running": 2, "failed": 1, "lost": 1}.get(last.outcome, 0), last.started


def _words(state: ElementState, last: Attempt) -> str:
    return f"{state.step}.{state.element}, attempt {last.number}, job {last.job} on {last.host}, {last.outcome}"
