"""A plan as cluster jobs: dependencies, arrays within the cluster's limits, windows where the queue is shorter."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from btrm.launch.submission import Kind, PlannedStep
from btrm.runs import Resources
from btrm.work import Range, ranges

_COMMIT = Resources(cpus=1, mem_gb=4, time_min=60)
_CONTROL = Resources(cpus=1, mem_gb=2, time_min=30)


@dataclass(frozen=True, slots=True)
class Job:
    """One sbatch call. An array's indices stand for elements `first + index` of its step.

    `after` names the jobs that must have succeeded before, `behind` those that must have ended, either way.
    """

    key: str
    step: str
    kind: Kind
    resources: Resources
    after: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    first: int = 0
    indices: tuple[Range, ...] = ((0, 1),)
    parallelism: int | None = None

    @property
    def count(self) -> int:
        """How many jobs the queue counts this as."""
        return sum(last - first for first, last in self.indices)

    @property
    def array(self) -> str:
        """What sbatch's --array is given: 0-9,12%4; empty for what is no array."""
        if self.kind != "array":
            return ""
        spans = (str(first) if last == first + 1 else f"{first}-{last - 1}" for first, last in self.indices)
        return ",".join(spans) + (f"%{self.parallelism}" if self.parallelism else "")


def make_jobs(
    steps: Sequence[PlannedStep],
    max_array: int,
    missing: Mapping[str, Collection[int]] | None = None,
    longest_min: int | None = None,
) -> list[Job]:
    """Return a plan's jobs, each after those it needs: one a step, for a shared step its arrays and a commit.

    `missing` says which elements of a step are to be sent where that is not all of them; steps that do not stand among
    `steps` are taken to be complete. `longest_min`: the most minutes that a job without GPUs may ask for, where known.
    """
    ends: dict[str, tuple[str, ...]] = {}
    jobs: list[Job] = []
    for step in steps:
        after = tuple(key for need in step.needs for key in ends.get(need, ()))
        if step.elements is None:
            jobs.append(Job(step.name, step.name, "run", step.resources, after))
        else:
            arrays = _arrays(step, after, max_array, (missing or {}).get(step.name))
            commit = _commit(step, tuple(job.key for job in arrays) or after, longest_min)
            jobs += [*arrays, commit]
        ends[step.name] = (jobs[-1].key,)
    return jobs


def _commit(step: PlannedStep, after: tuple[str, ...], longest_min: int | None) -> Job:
    """Return the job that puts all parts together: many short elements leave as many parts as few long ones."""
    wanted = max(_COMMIT.time_min, step.resources.time_min)
    time_min = wanted if longest_min is None else min(wanted, longest_min)
    resources = _COMMIT.model_copy(update={"time_min": time_min})
    return Job(f"{step.name}.commit", step.name, "commit", resources, after)


def controller(steps: Iterable[PlannedStep], key: str = "control") -> Job:
    """Return the job that looks after a plan's others, or, as `patrol`, after the controller."""
    return Job(key, key, "control", _no_longer(_CONTROL, steps))


def _no_longer(resources: Resources, steps: Iterable[PlannedStep]) -> Resources:
    shortest = min([resources.time_min, *(step.resources.time_min for step in steps)])
    return resources.model_copy(update={"time_min": shortest})


def _arrays(step: PlannedStep, after: tuple[str, ...], max_array: int, missing: Collection[int] | None) -> list[Job]:
    """Cut a step's elements into arrays of at most `max_array` indices, and share its %N out among them.

    Where there are more arrays than N, N of them run at a time, an element each: every other one waits for the N-th
    before it to end.
    """
    assert step.elements is not None
    blocks: dict[int, list[int]] = {}
    for element in range(step.elements) if missing is None else sorted(missing):
        blocks.setdefault(element // max_array, []).append(element % max_array)
    jobs = [
        Job(f"{step.name}.{block}", step.name, "array", step.resources, after, (), block * max_array, ranges(indices))
        for block, indices in blocks.items()
    ]
    if step.parallelism is None:
        return jobs
    lanes = min(step.parallelism, len(jobs))
    each, rest = divmod(step.parallelism, max(1, lanes))
    return [
        replace(job, parallelism=each + (place < rest), behind=(jobs[place - lanes].key,) if place >= lanes else ())
        for place, job in enumerate(jobs)
    ]


def window(jobs: Sequence[Job], room: int | None) -> list[Job]:
    """Return the jobs that fit into the queue now; the last array is cut short where it does not fit whole.

    Nothing is sent before what it needs, and a commit not before the whole of its arrays. None is a queue without end.
    """
    if room is None:
        return list(jobs)
    sent: list[Job] = []
    whole: set[str] = set()
    keys = {job.key for job in jobs}
    for job in jobs:
        if any(key in keys and key not in whole for key in (*job.after, *job.behind)):
            continue
        if job.count <= room:
            sent.append(job)
            whole.add(job.key)
        elif job.kind == "array" and room > 0:
            sent.append(replace(job, indices=_first(job.indices, room)))
        room -= sent[-1].count if sent and sent[-1].key == job.key else 0
    return sent


def _first(indices: Sequence[Range], count: int) -> tuple[Range, ...]:
    kept: list[Range] = []
    for first, last in indices:
        if count <= 0:
            break
        kept.append((first, min(last, first + count)))
        count -= kept[-1][1] - first
    return tuple(kept)


def gpu_hours(jobs: Sequence[Job]) -> float:
    """Return the GPU-hours that jobs ask for: what they would use if each ran to its time limit."""
    return sum(job.count * job.resources.nodes * job.resources.gpus * job.resources.time_min / 60 for job in jobs)
