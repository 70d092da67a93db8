"""How far one step is: what its elements have written, joined with what the queue says of its jobs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from btrm.launch.failures import FAILURES, Failure, classify
from btrm.launch.queue import QueueEntry, QueueView, ended
from btrm.launch.submission import Attempt, ElementState, PlannedStep, SentJob, Submission
from btrm.operate.states import Extent, Tally, extent

SILENT_S = 60.0  # an attempt says every 10 s that it lives
_NO_JOB = "no job of it is left; sent again by the run's controller, or by: btrm retry RUN"


@dataclass(frozen=True, slots=True)
class StepStatus:
    """A step's line. Counts are of elements, one where the step is no array; `progress` is in pairs or steps."""

    step: str
    state: str
    why: str = ""
    elements: int = 1
    done: int = 0
    running: int = 0
    queued: int = 0
    failed: int = 0
    attempts: int = 0
    progress: int | None = None
    total: int | None = None
    cells_done: int | None = None
    cells: int | None = None
    eta_s: float | None = None
    starts: float | None = None
    nodes: tuple[str, ...] = ()
    silent_s: float | None = None
    causes: dict[str, int] = field(default_factory=dict[str, int])
    cause: str = ""
    where: str = ""
    when: float | None = None
    reason: str = ""
    advice: str = ""


@dataclass(slots=True)
class StepView:
    """One step that is not complete, with everything that is known of it."""

    submission: Submission
    step: PlannedStep
    tallies: Mapping[str, Tally]
    sent: Sequence[SentJob]
    view: QueueView
    ready: bool

    def status(self) -> StepStatus:
        """Return the step's line."""
        found = self.tallies.get(self.step.name, Tally())
        commit = self.tallies.get(f"{self.step.name}.commit", Tally())
        entries, committing = self._entries("run", "array"), self._entries("commit")
        alive, dead = self._split(found, entries)
        committers, uncommitted = self._split(commit, committing)
        queued = [entry for entry in entries.values() if entry.waiting]
        waiting = queued or [entry for entry in committing.values() if entry.waiting]
        begun = found.finished | {state.element for state in found.open}
        starting = sum(not entry.waiting for element, entry in entries.items() if element not in begun)
        elements = self.step.elements or 1
        state, why = self._state(bool(alive or committers or starting), waiting, bool(dead or uncommitted))
        if committers or (committing and found.done == elements):
            why = ", ".join(["commit", *([why] if why else [])])
        size = extent(self.submission, self.step, found)
        progress, total = _progress(size, found)
        newest = _newest_failure([*found.open, *commit.open], [*dead, *uncommitted])
        silent = [time.time() - last.seen for last in (*alive, *committers) if time.time() - last.seen > SILENT_S]
        return StepStatus(
            step=self.step.name,
            state=state,
            why=why,
            elements=elements,
            done=found.done,
            running=len(alive) + starting,
            queued=len(queued),
            failed=len(dead) + len(uncommitted),
            attempts=found.attempts + commit.attempts,
            progress=progress,
            total=total,
            cells_done=size.cells_done if size else None,
            cells=size.cells if size else None,
            eta_s=_eta(alive, progress, total),
            starts=min((entry.start for entry in waiting if entry.start), default=None),
            nodes=tuple(sorted({last.host for last in (*alive, *committers)})),
            silent_s=max(silent, default=None),
            causes=dict(Counter(last.cause or "error" for last in (*dead, *uncommitted))),
            **(_told(newest) if newest else {}),
        )

    def _entries(self, *kinds: str) -> dict[int, QueueEntry]:
        """Return {element: entry} of what the queue holds of this step."""
        found: dict[int, QueueEntry] = {}
        for job in self.sent:
            if job.step == self.step.name and job.kind in kinds:
                for index, entry in self.view.jobs.get(job.job_id, {}).items():
                    found[job.first + (index or 0)] = entry
        return found

    def _split(self, found: Tally, entries: Mapping[int, QueueEntry]) -> tuple[list[Attempt], list[Attempt]]:
        """Return the last attempts that live, and those that have ended (or vanished) with no job to follow."""
        alive: list[Attempt] = []
        dead: list[Attempt] = []
        lost: list[Attempt] = []
        stopped = self.submission.stopped()
        patience = SILENT_S if stopped is None else 0.0  # what was cancelled ends within seconds
        for state in found.open:
            last, entry = state.last, entries.get(state.element)
            assert last is not None
            if last.outcome != "running":
                if entry is None or not self.view.known:
                    dead.append(last)
            elif entry is not None:
                alive += [last] if not entry.waiting else []  # else it is in the queue again
            elif not self.view.known or self.view.asked - last.seen < patience:
                alive.append(last)  # nobody can say more; its line tells for how long it has been silent
            else:
                lost.append(last)
        return alive, [*dead, *self._lost(lost, stopped["cause"] if stopped else "")]

    def _lost(self, attempts: Sequence[Attempt], stopped: str) -> list[Attempt]:
        """Return attempts that nobody knows any more, with what Slurm, asked for the whole run, remembers."""
        ours = [last.job for last in attempts] + [job.job_id for job in self.sent]
        told = ended(ours) if attempts and stopped != "cancelled" else {}
        words = [told.get(last.job, "") if stopped != "cancelled" else "CANCELLED" for last in attempts]
        return [_with_end(last, word) for last, word in zip(attempts, words, strict=True)]

    def _state(self, alive: bool, waiting: Sequence[QueueEntry], dead: bool) -> tuple[str, str]:
        if alive:
            return "running", ""
        reasons = sorted({entry.reason for entry in waiting})
        if waiting:
            early = not self.ready or reasons == ["Dependency"]
            return ("waiting", "") if early else ("queued", ", ".join(filter(None, reasons)))
        stopped = self.submission.stopped()
        if stopped is not None and (stopped["cause"] == "cancelled" or not dead):
            return ("cancelled" if stopped["cause"] == "cancelled" else "waiting"), ""
        if dead:
            return "failed", ""
        mine = any(job.step == self.step.name for job in self.sent)
        if not self.ready or not mine or (self.sent and not self.view.known):
            return "waiting", "" if self.view.known or not mine else "sent; squeue does not answer"
        return "lost", _NO_JOB


def _progress(size: Extent | None, found: Tally) -> tuple[int | None, int | None]:
    if size is not None:
        return size.rows_done, size.rows
    return (found.progress, found.total) if found.total else (None, None)


def _eta(alive: Sequence[Attempt], progress: int | None, total: int | None) -> float | None:
    """Return the seconds until the work is done at the rate of the attempts that live."""
    rate = sum((a.done - a.at_start) / (a.seen - a.started) for a in alive if a.seen > a.started)
    if rate <= 0 or progress is None or total is None:
        return None
    return max(0, total - progress) / rate


def _with_end(last: Attempt, word: str) -> Attempt:
    cause = classify("", None, word).name if word else "lost"
    return last.model_copy(update={"outcome": "lost", "cause": cause, "reason": last.reason or word})


def _newest_failure(states: Sequence[ElementState], dead: Sequence[Attempt]) -> tuple[str, Attempt] | None:
    """Return (STEP.ELEMENT, attempt) of the last one that did not end well: of those that no job follows, if any."""
    over = {(attempt.job, attempt.number): attempt for attempt in dead}
    found: list[tuple[str, Attempt]] = []
    for state in states:
        for attempt in state.attempts:
            told = over.get((attempt.job, attempt.number), attempt) if attempt is state.last else attempt
            if told.outcome in {"failed", "lost"} and (not over or (told.job, told.number) in over):
                found.append((f"{state.step}.{state.element}", told))
    return max(found, key=lambda pair: pair[1].ended or pair[1].seen, default=None)


def _told(newest: tuple[str, Attempt]) -> dict[str, Any]:
    element, attempt = newest
    failure = FAILURES.get(attempt.cause) or Failure("lost", "retry", _NO_JOB)
    return {
        "cause": attempt.cause or "error",
        "where": f"{element} on {attempt.host}",
        "when": attempt.ended or attempt.seen,
        "reason": attempt.reason,
        "advice": failure.advice,
    }
