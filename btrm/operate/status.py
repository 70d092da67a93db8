"""How far a run is: from the disk, and from the queue where there is one. Neither sacct nor slurmctld has to answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import orjson

from btrm.config import ConfigError
from btrm.launch.queue import QueueView, look
from btrm.launch.submission import PlannedStep, SentJob, Submission, submissions
from btrm.operate.states import Tally, tally
from btrm.operate.steps import StepStatus, StepView
from btrm.operate.where import epoch
from btrm.runs import MANIFEST, REQUEST, read_request
from btrm.train.rank import read_steps


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run's header and its steps. `queue` says how old squeue's answer is, or why there is none."""

    run: str
    submission: str
    submitted: float | None
    site: str
    stopped: dict[str, str] | None
    controller: str
    queue: str
    steps: tuple[StepStatus, ...]

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen."""
        return self.stopped is not None or all(step.state == "complete" for step in self.steps)


def run_status(root: Path) -> RunStatus:
    """Return how far a run is."""
    known = submissions(root)
    steps = {step.name: (submission, step) for submission in known for step in submission.plan().steps}
    complete = {name: is_complete(step, root) for name, (_, step) in steps.items()}
    newest = known[-1] if known else None
    asked = not all(complete.values()) and any(submission.sent() for submission in known)
    view = look(_interval(newest)) if asked and newest else QueueView()
    shown = {s.name: s for name, (s, _) in steps.items() if not complete[name] or s == newest}
    tallies = {name: tally(submission) for name, submission in shown.items()}
    sent = {name: submission.sent() for name, submission in shown.items()}
    rows: list[StepStatus] = []
    for name, (submission, step) in steps.items():
        found = tallies.get(submission.name, {})
        if complete[name]:
            rows.append(_complete(step, found))
        elif not sent[submission.name]:
            rows.append(_local(root / name))
        else:
            ready = all(complete.get(need, True) for need in step.needs)
            rows.append(StepView(submission, step, found, sent[submission.name], view, ready).status())
    rows += [_local(folder) for folder in _folders(root, steps)]
    return RunStatus(
        run=str(root),
        submission=newest.name if newest else "",
        submitted=_submitted(newest) if newest else None,
        site=str(newest.plan().site.get("name", "")) if newest else "",
        stopped=newest.stopped() if newest and not all(complete.values()) else None,
        controller=_controller(newest.sent(), view) if newest else "",
        queue=_queue_words(view) if asked else "",
        steps=tuple(rows),
    )


def _complete(step: PlannedStep, found: Mapping[str, Tally]) -> StepStatus:
    count = step.elements or 1
    attempts = sum(found[key].attempts for key in (step.name, f"{step.name}.commit") if key in found)
    return StepStatus(step.name, "complete", elements=count, done=count, attempts=attempts)


def is_complete(step: PlannedStep, root: Path) -> bool:
    """Say whether a step has a manifest for as much as the plan asks for. No input is read: that is `btrm verify`."""
    try:
        manifest = cast("dict[str, Any]", orjson.loads((root / step.name / MANIFEST).read_bytes()))
    except FileNotFoundError:
        return False
    if manifest["config"] == step.config:
        return True
    from btrm.stage_table import get_stage  # brings numpy, a third of the time to start

    config, grows = get_stage(step.stage).config, ("extent", "members")
    try:
        return config.build(manifest["config"]).by_role(*grows) == config.build(step.config).by_role(*grows)
    except ConfigError:  # made by another version of btrm: it was complete to that one
        return True


def _local(folder: Path) -> StepStatus:
    """Return the line of a stage that no cluster was asked for: there is only the disk to tell."""
    if (folder / MANIFEST).exists():
        return StepStatus(folder.name, "complete", done=1)
    if not (folder / REQUEST).exists():
        return StepStatus(folder.name, "waiting")
    done, of = read_steps(folder) or (None, None)
    return StepStatus(folder.name, "not complete", progress=done, total=of)


def _folders(root: Path, planned: Collection[str]) -> list[Path]:
    """Return the folders of stages that no plan holds, as data passes through them."""
    found = [path for path in root.iterdir() if path.name not in planned and (path / REQUEST).exists()]
    return sorted(found, key=lambda path: (_stage_order(path), path.name))


def _stage_order(folder: Path) -> int:
    from btrm.stage_table import STAGES

    request = read_request(folder)
    return list(STAGES).index(request.stage) if request and request.stage in STAGES else len(STAGES)


def _interval(submission: Submission | None) -> float:
    site = submission.plan().site if submission else {}
    return float(cast("float", site.get("queue_interval_s", 30.0)))


def _submitted(submission: Submission) -> float | None:
    sent = submission.sent()
    return epoch(sent[0].sent) if sent else submission.plan_file.stat().st_mtime


def _controller(sent: Sequence[SentJob], view: QueueView) -> str:
    """Return what the queue says of the job that looks after the others."""
    control = [job for job in sent if job.key == "control"]
    entry = view.find(control[-1].job_id) if control else None
    if entry is None:
        return ""
    return f"{entry.state.lower()}{f' ({entry.reason})' if entry.reason else ''}"


def _queue_words(view: QueueView) -> str:
    if not view.problem:
        return f"{view.age_s:.0f} s old"
    return f"{view.problem}; " + (f"last answer {view.age_s:.0f} s old" if view.asked else "nothing known of the queue")
