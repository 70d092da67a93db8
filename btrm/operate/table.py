"""A run's status as text."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from btrm.operate.status import RunStatus
from btrm.operate.steps import StepStatus
from btrm.operate.where import ago, duration

_HEAD = ("step", "state", "elements", "progress", "eta", "tries", "nodes")
_MANY = 3


def render(status: RunStatus) -> str:
    """Return a run's status: a header, a line a step, and below it what went wrong last."""
    rows = [_HEAD, *(_cells(step) for step in status.steps)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = [*_header(status), _line(rows[0], widths)]
    for step, row in zip(status.steps, rows[1:], strict=True):
        lines += [_line(row, widths), *_notes(step)]
    return "\n".join(lines)


def _header(status: RunStatus) -> list[str]:
    parts = [status.run]
    if status.submission:
        when = f" ({ago(status.submitted)})" if status.submitted else ""
        parts.append(f"{status.submission}{when}{f' on {status.site}' if status.site else ''}")
    if status.controller:
        parts.append(f"controller {status.controller}")
    if status.queue:
        parts.append(f"queue: {status.queue}")
    lines = ["  ".join(parts)]
    if status.stopped is not None:
        lines.append(f"stopped: {status.stopped['cause']}: {status.stopped['reason']}")
        lines.append(f"         {status.stopped['advice']}")
    return lines


def _cells(step: StepStatus) -> tuple[str, ...]:
    state = f"{step.state} ({step.why})" if step.why else step.state
    return (
        step.step,
        state,
        _elements(step),
        _progress(step),
        _eta(step),
        str(step.attempts or ""),
        _nodes(step.nodes),
    )


def _elements(step: StepStatus) -> str:
    queued = step.queued if step.state in {"running", "queued"} else 0
    counts = {"running": step.running, "queued": queued, "failed": step.failed}
    others = ", ".join(f"{count} {what}" for what, count in counts.items() if count and step.elements > 1)
    if step.elements == 1:
        return ""
    return f"{step.done}/{step.elements}{f' ({others})' if others else ''}"


def _progress(step: StepStatus) -> str:
    if step.state == "complete" or step.progress is None:
        return ""
    text = f"{step.progress}/{step.total}" if step.total else str(step.progress)
    if step.cells is None:
        return text
    return f"{text} pairs" + (f", {step.cells_done}/{step.cells} cells" if step.cells > 1 else "")


def _eta(step: StepStatus) -> str:
    if step.eta_s is not None:
        return duration(step.eta_s)
    if step.starts is not None and step.starts > time.time():
        return f"starts in {duration(step.starts - time.time())}"
    return ""


def _nodes(nodes: Sequence[str]) -> str:
    return ",".join(nodes) if len(nodes) <= _MANY else f"{','.join(nodes[:_MANY])} +{len(nodes) - _MANY}"


def _notes(step: StepStatus) -> list[str]:
    notes: list[str] = []
    if step.silent_s is not None:
        notes.append(f"not heard of for {duration(step.silent_s)}")
    if step.cause and step.state != "cancelled":
        reason = re.sub(r"\s+", " ", step.reason)[:160]
        when = f", {ago(step.when)}" if step.when else ""
        last = f"{step.cause}: {step.where}{when}{f': {reason}' if reason else ''}"
        if not step.failed:  # a job follows it already
            return [f"    {note}" for note in (*notes, f"before: {last}")]
        notes += [f"failed: {_causes(step)}, the last:"] if step.failed > 1 else []
        notes += [last, f"  {step.advice}"]
    return [f"    {note}" for note in notes]


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _causes(step: StepStatus) -> str:
    return ", ".join(f"{count} {cause}" for cause, count in sorted(step.causes.items(), key=lambda item: -item[1]))
