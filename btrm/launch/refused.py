"""Attempts that ended before btrm ran: a job's script, or the first look at its image, would not go on.

They could not write a state; their logs say why, and whoever looks after the jobs writes it for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from btrm.launch.last_words import last_words, refusal
from btrm.launch.submission import Attempt, ElementState, SentJob, Submission

_END = "_0_log.out"  # of a job's first node, where its script writes too


def note_refused(submission: Submission) -> None:
    """Add an attempt to the state of every element whose newest job was refused; call it when all jobs have ended."""
    newest = {job.key: job for job in submission.sent() if job.kind != "control"}
    for job in newest.values():
        for log, name, element in _logs(submission, job):
            step = f"{job.step}.commit" if job.kind == "commit" else job.step
            state = submission.read_state(step, element)
            known = state.last is not None and (state.last.job, state.last.pid) == (name, 0)
            if not known and (told := refusal(log)) is not None:
                submission.write_state(_refused(state, log, name, told))


def _logs(submission: Submission, job: SentJob) -> Iterator[tuple[Path, str, int]]:
    """Yield (log, the job's name at Slurm, element) of what has begun; an element that is done is not looked at."""
    if job.kind != "array":
        yield submission.logs / f"{job.job_id}{_END}", job.job_id, 0
        return
    for log in sorted(submission.logs.glob(f"{job.job_id}_*{_END}")):
        name = log.name.removesuffix(_END)
        element = job.first + int(name.partition("_")[2])
        last = submission.read_state(job.step, element).last
        if last is None or last.outcome != "done":
            yield log, name, element


def _refused(state: ElementState, log: Path, name: str, told: tuple[str, str]) -> ElementState:
    cause, line = told
    before, when, done = state.attempts, log.stat().st_mtime, state.last.done if state.last else 0
    if before and before[-1].outcome == "running":  # it was preempted, or its node went
        why = last_words(log, f"{state.step.removesuffix('.commit')}.{state.element} on ") or "killed"
        lost = before[-1].model_copy(update={"outcome": "lost", "cause": why, "ended": before[-1].seen})
        before = (*before[:-1], lost)
    refused = Attempt(
        number=len(before) + 1,
        job=name,
        restarts=before[-1].restarts + 1 if before and before[-1].job == name else 0,
        host="a node",  # the log does not say which
        pid=0,
        gpus=0,
        started=when,
        seen=when,
        ended=when,
        outcome="failed",
        cause=cause,
        reason=line.removeprefix(f"btrm: {cause}: "),
        at_start=done,
        done=done,
    )
    return state.model_copy(update={"attempts": (*before, refused)})
