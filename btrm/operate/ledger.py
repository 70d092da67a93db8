"""What runs cost: hours by stage, useful and wasted by cause, from the states on disk.

An attempt's hours run from its first line to its last sign of life; what Slurm charges for starting a job is not in
them. Of an attempt that was lost or failed, the time after its last progress is wasted, and so is the share of its
progress that the next attempt had to repeat.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast

import orjson

from btrm.launch.submission import Attempt, ElementState, Plan, Submission, submissions
from btrm.operate.money import COLUMNS, Paid
from btrm.runs import Resources

USEFUL = "useful"
API = "api"
SPENT = "spent.json"  # a submission's entries, kept where `btrm gc` removes its states
_COMMIT = Resources(cpus=1)


@dataclass(frozen=True, slots=True)
class Entry:
    """Hours that one step of one run spent on one thing: `useful`, or the class of failure that wasted them."""

    run: str
    step: str
    what: str
    gpu_hours: float
    cpu_hours: float
    node_hours: float
    attempts: int


def ledger(roots: Iterable[Path]) -> list[Entry]:
    """Return what runs have spent, by step and cause; running attempts count up to their last sign of life."""
    found: dict[tuple[str, str, str], Entry] = {}
    for root in roots:
        for submission in submissions(root):
            for entry in entries_of(submission, str(root)):
                key = (entry.run, entry.step, entry.what)
                found[key] = _sum(found[key], entry) if key in found else entry
    return list(found.values())


def entries_of(submission: Submission, run: str) -> Iterator[Entry]:
    """Yield a submission's entries, from its states or, where those are gone, from what was kept of them."""
    kept = submission.directory / SPENT
    if kept.exists():
        rows = cast("list[dict[str, Any]]", orjson.loads(kept.read_bytes()))
        for values in rows:
            values["run"] = run
            yield Entry(**values)
    plan = submission.plan()
    order = {step.name: place for place, step in enumerate(plan.steps)}
    for state in sorted(submission.states(), key=lambda state: order[state.step.removesuffix(".commit")]):
        needs = _resources(plan, state)
        for attempt, following in zip_longest(state.attempts, state.attempts[1:]):
            useful_s, wasted_s = split(attempt, following)
            step = state.step.removesuffix(".commit")
            yield _entry(run, step, USEFUL, useful_s, needs, 1)
            if wasted_s:
                yield _entry(run, step, attempt.cause or attempt.outcome, wasted_s, needs, 0)


def split(attempt: Attempt, following: Attempt | None) -> tuple[float, float]:
    """Return the seconds of an attempt that were useful, and those that were not."""
    end = attempt.seen if attempt.ended is None else attempt.ended
    whole = max(0.0, end - attempt.started)
    if attempt.outcome in {"running", "done"}:
        return whole, 0.0
    worked = (
        whole if attempt.outcome == "stopped" else max(0.0, (attempt.progressed or attempt.started) - attempt.started)
    )
    gained = attempt.done - max(0, attempt.at_start)
    if following is not None and following.at_start >= 0 and gained > 0:
        kept = min(attempt.done, following.at_start) - max(0, attempt.at_start)
        worked *= max(0, kept) / gained
    elif gained <= 0:
        worked = 0.0
    return worked, whole - worked


def render(entries: Sequence[Entry]) -> str:
    """Return a table: a line a step of each run, what was wasted on what, and the sum."""
    if not entries:
        return "nothing spent on a cluster"
    lines = [
        f"{'step':<14}{'GPU-hours':>10}{'wasted':>9}{'CPU-hours':>11}{'node-hours':>12}{'attempts':>10}  wasted on"
    ]
    for run in dict.fromkeys(entry.run for entry in entries):
        mine = [entry for entry in entries if entry.run == run]
        lines.append(run)
        lines += [_row(step, [e for e in mine if e.step == step]) for step in dict.fromkeys(e.step for e in mine)]
    return "\n".join([*lines, _row("all", entries)])


def to_csv(entries: Sequence[Entry], money: Sequence[Paid] = ()) -> str:
    """Return the entries as CSV, a line each; what APIs were paid stands in lines and columns of its own."""
    text = io.StringIO()
    names = [field.name for field in fields(Entry)]
    writer = csv.DictWriter(text, [*names, *(COLUMNS if money else ())], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(entry) for entry in entries)
    writer.writerows({"run": row.run, "step": row.step, "what": API, **row.columns()} for row in money)
    return text.getvalue()


def _row(name: str, entries: Sequence[Entry]) -> str:
    gpu = any(entry.gpu_hours for entry in entries)
    total = {what: sum(_hours(e, gpu) for e in entries if e.what == what) for what in {e.what for e in entries}}
    wasted = {what: hours for what, hours in sorted(total.items(), key=lambda item: -item[1]) if what != USEFUL}
    unit = "GPU-h" if gpu else "CPU-h"
    causes = ", ".join(f"{what} {hours:.2f} {unit}" for what, hours in wasted.items() if hours >= 0.005)
    share = sum(wasted.values()) / (sum(total.values()) or 1)
    return (
        f"{name:<14}{sum(e.gpu_hours for e in entries):>10.2f}{share:>9.1%}{sum(e.cpu_hours for e in entries):>11.2f}"
        f"{sum(e.node_hours for e in entries):>12.2f}{sum(e.attempts for e in entries):>10}  {causes}"
    ).rstrip()


def _hours(entry: Entry, gpu: bool) -> float:
    return entry.gpu_hours if gpu else entry.cpu_hours


def _resources(plan: Plan, state: ElementState) -> Resources:
    return _COMMIT if state.step.endswith(".commit") else plan.step(state.step).resources


def _entry(run: str, step: str, what: str, seconds: float, needs: Resources, attempts: int) -> Entry:
    hours = needs.nodes * seconds / 3600
    return Entry(run, step, what, hours * needs.gpus, 0.0 if needs.gpus else hours * needs.cpus, hours, attempts)


def _sum(one: Entry, other: Entry) -> Entry:
    return Entry(
        one.run,
        one.step,
        one.what,
        one.gpu_hours + other.gpu_hours,
        one.cpu_hours + other.cpu_hours,
        one.node_hours + other.node_hours,
        one.attempts + other.attempts,
    )
