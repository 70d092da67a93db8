"""What is done when all jobs of a submission have ended: send what is left, or say why nothing more will be sent.

It runs as a job of its own after all others (`afterany`), so nothing has to stay alive on a login node; `btrm retry`
does the same by hand. It holds no state but what is on disk.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from btrm.config import ConfigError
from btrm.launch.attempt import MAX_HALVINGS, consecutive, hopeless
from btrm.launch.failures import FAILURES, classify
from btrm.launch.jobs import Job, make_jobs
from btrm.launch.limits import ClusterLimits, ask_cluster
from btrm.launch.refused import note_refused
from btrm.launch.sbatch import Request
from btrm.launch.site import Site
from btrm.launch.slurm import live_jobs, send, send_control
from btrm.launch.submission import ElementState, Plan, PlannedStep, SentJob, Submission, submissions
from btrm.locks import exclusive
from btrm.publishing import write_json
from btrm.runs import read_manifest
from btrm.stage_table import get_stage
from btrm.stages import prepare

_LOG = logging.getLogger(__name__)
_EXCLUDE_S = 3600.0  # how long a node that failed is left out
_MAX_BACKOFF_S = 3600
_IDLE_ROUNDS = 3
_FORGOTTEN = -1  # an attempt's at_start, when a person has sent the work again
_QUICK_TRIES = 2  # whoever has a GPU does not wait long for slurmctld


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why nothing more is sent, and what a person can do."""

    cause: str
    reason: str
    advice: str


def advance(submission: Submission) -> None:
    """Do what the controller does. Of two that look at the same time, the second sees what the first has sent."""
    with exclusive(submission.directory / "control"):
        if (stopped := submission.stopped()) is not None:
            _LOG.info("stopped: %s", stopped["reason"])
            return
        alive = live_jobs(submission)
        if alive:
            _LOG.info("%d jobs have not ended", len(alive))
            _watch(submission, alive)
            return
        todo = unfinished(submission.plan())
        if not todo:
            _LOG.info("every step is complete")
        else:
            note_refused(submission)
            if (verdict := _verdict(submission, todo)) is not None:
                stop(submission, verdict)
            else:
                resend(submission)


def give_up(submission: Submission, error: Exception) -> None:
    """Stop for an error of the controller's own, which another look would meet again."""
    failure = classify("", None, None, error)
    stop(submission, Verdict(failure.name, f"the controller failed: {error}", "mend the cause, then: btrm retry"))


def ensure(submission: Submission) -> None:
    """Send a controller where there should be one and is none: it was cancelled, or slurmctld lost it in a crash."""
    plan = submission.plan()
    site = site_of(plan)
    if not site.submit_from_nodes or submission.stopped() is not None:
        return
    if any(read_manifest(Path(plan.root) / step.name) is None for step in plan.steps):
        _watch(submission, live_jobs(submission, _QUICK_TRIES))


def _watch(submission: Submission, alive: Mapping[str, str]) -> None:
    """Have a controller look again when these jobs have ended, unless one is going to."""
    if f"btrm-{submission.name}-control" in alive:
        return
    plan = submission.plan()
    own = [job for job in [os.environ.get("SLURM_JOB_ID")] if job]
    send_control(Request(submission, plan, site_of(plan)), sorted({*alive.values(), *own}))


def stop(submission: Submission, verdict: Verdict) -> None:
    """Write down that nothing more is sent, and why."""
    _LOG.error("stopped: %s: %s; %s", verdict.cause, verdict.reason, verdict.advice)
    write_json(submission.stop_file, {"cause": verdict.cause, "reason": verdict.reason, "advice": verdict.advice})


def resend(submission: Submission, *, reset: bool = False, only: Collection[str] | None = None) -> list[SentJob]:
    """Send what is neither complete nor under way; return the jobs. `reset` forgets why it stopped and past failures.

    `only` names the steps to be sent now; the controller after them sends the others. Raises ConfigError where the
    cluster cannot take it.
    """
    if reset:
        _reset(submission)
    plan = submission.plan()
    site = site_of(plan)
    todo = unfinished(plan)
    if not todo:
        return []
    limits = ask_cluster(site)
    states = list(submission.states())
    missing = {step.name: missing_elements(submission, step, states) for step in todo}
    jobs = make_jobs(todo, limits.max_array, missing, limits.longest_min(site.seen_by(0)))
    prefix = f"btrm-{submission.name}-"
    alive = {name.removeprefix(prefix): job_id for name, job_id in live_jobs(submission).items()}
    jobs = [job for job in jobs if job.key not in alive and (only is None or job.step in only)]
    request = Request(
        submission, plan, site, begin_s=_backoff(states, site), exclude=_exclude(states, jobs, limits, site)
    )
    _note_round(submission, todo, states)
    return send(jobs, request, limits.room, alive) if jobs else []


def site_of(plan: Plan) -> Site:
    """Return the site as it was when the plan was submitted."""
    return Site.build(plan.site)


def unfinished(plan: Plan) -> list[PlannedStep]:
    """Return the steps that are not complete as the plan wants them."""
    return [step for step in plan.steps if not _complete(step, Path(plan.root))]


def _complete(step: PlannedStep, root: Path) -> bool:
    if read_manifest(root / step.name) is None:
        return False
    try:
        config = get_stage(step.stage).config.build(step.config)
        return prepare(step.name, config, step.resources, root, step.stage).done
    except ConfigError:
        return False


def missing_elements(submission: Submission, step: PlannedStep, states: Iterable[ElementState]) -> set[int]:
    """Return the elements of a shared step that have not done their share."""
    if step.elements is None:
        return set()
    if not submission.split(step.name).exists():
        return set(range(step.elements))
    done = {s.element for s in states if s.step == step.name and s.last is not None and s.last.outcome == "done"}
    return set(range(step.elements)) - done


def _verdict(submission: Submission, todo: list[PlannedStep]) -> Verdict | None:
    if (newer := _newer(submission, todo)) is not None:
        return Verdict("fenced", f"submission {newer.name} has the same work", FAILURES["fenced"].advice)
    names = {step.name for step in todo} | {f"{step.name}.commit" for step in todo}
    states = list(submission.states())
    for state in states:
        if state.step in names and (verdict := _of_element(state)) is not None:
            return verdict
    after = submission.plan().after
    if after and not states:
        reason = f"job {after}, given as --after, did not succeed, or what waited for it was cancelled"
        return Verdict("cancelled", reason, "to start without it: btrm retry")
    rounds = _rounds(submission)
    if len(rounds) >= _IDLE_ROUNDS and set(rounds[-_IDLE_ROUNDS:]) == {_digest(todo, states)}:
        reason = f"sent {_IDLE_ROUNDS} times without any progress"
        return Verdict("no_progress", reason, "see btrm status and btrm logs; then: btrm retry")
    return None


def _newer(submission: Submission, todo: Iterable[PlannedStep]) -> Submission | None:
    """Return a later submission to the same run that has any of these steps: it asked for them as they shall be."""
    names = {step.name for step in todo}
    for other in submissions(Path(submission.plan().root)):
        later = other.name > submission.name and other.sent()
        if later and names & {step.name for step in other.plan().steps}:
            return other
    return None


def _of_element(state: ElementState) -> Verdict | None:
    """Return why an element should not be sent again; nothing counts that a retry by hand has forgotten."""
    last = state.last
    if last is None or last.at_start == _FORGOTTEN or last.outcome not in {"failed", "lost", "stopped"}:
        return None
    failure = FAILURES.get(last.cause)
    where = f"{state.step}.{state.element}, job {last.job} on {last.host}"
    if last.cause == "fenced":  # by another submission: in this one the newer attempt would be the last
        return Verdict("fenced", f"{where}: {last.reason}", "another submission has this work: btrm status")
    if failure is not None and failure.action == "stop":
        return Verdict(last.cause, f"{where}: {last.reason}", failure.advice)
    if last.done <= last.at_start and (idle := hopeless(state.attempts, last.at_start, MAX_HALVINGS)) is not None:
        return Verdict(idle.name, f"{where}: {idle.advice}", FAILURES[idle.name].advice)
    return None


def _digest(todo: list[PlannedStep], states: Iterable[ElementState]) -> str:
    """Return how far a submission is, as a text that changes with any progress."""
    done = sum(state.last.done + (state.last.outcome == "done") for state in states if state.last is not None)
    return f"{len(todo)} steps left, {done} done"


def _rounds(submission: Submission) -> list[str]:
    path = submission.directory / "rounds.json"
    return json.loads(path.read_text()) if path.exists() else []


def _note_round(submission: Submission, todo: list[PlannedStep], states: list[ElementState]) -> None:
    write_json(submission.directory / "rounds.json", [*_rounds(submission), _digest(todo, states)])


def _backoff(states: Iterable[ElementState], site: Site) -> int:
    """Return the seconds to wait: doubled with each failure in a row of an element that is worth another try."""
    times = [
        consecutive(state.attempts, state.last.cause)
        for state in states
        if state.last is not None and state.last.outcome == "failed" and _tried_again(state.last.cause)
    ]
    return min(_MAX_BACKOFF_S, int(site.backoff_s * 2 ** (max(times) - 1))) if times else 0


def _tried_again(cause: str) -> bool:
    failure = FAILURES.get(cause)
    return failure is None or failure.action == "retry"


def _exclude(states: Iterable[ElementState], jobs: Iterable[Job], limits: ClusterLimits, site: Site) -> str:
    """Return the nodes that failed lately in a way that is theirs; none where too few others would be left.

    Of a job on several nodes (n[1-2]) nobody can tell which was to blame.
    """
    since = time.time() - _EXCLUDE_S
    recent = [last for state in states if (last := state.last) and last.outcome in {"failed", "lost"}]
    recent = [last for last in recent if (last.ended or last.seen) > since and last.cause in FAILURES]
    bad = sorted({last.host for last in recent if FAILURES[last.cause].exclude_node and "[" not in last.host})
    enough = all(limits.nodes_left(site.seen_by(job.resources.gpus), bad) >= job.resources.nodes for job in jobs)
    return ",".join(bad) if enough else ""


def _reset(submission: Submission) -> None:
    """Forget why it stopped, and the failures that count against another attempt."""
    submission.stop_file.unlink(missing_ok=True)
    (submission.directory / "rounds.json").unlink(missing_ok=True)
    for state in submission.states():
        if state.last is not None and state.last.outcome != "done":
            attempts = tuple(past.model_copy(update={"at_start": _FORGOTTEN}) for past in state.attempts)
            submission.write_state(state.model_copy(update={"attempts": attempts}))
