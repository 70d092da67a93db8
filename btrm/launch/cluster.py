"""A plan on a cluster: planned, checked against what the cluster gives, shown, sent."""

from __future__ import annotations

import glob
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from btrm.config import Config, ConfigError
from btrm.images import image_stat
from btrm.launch.control import unfinished
from btrm.launch.jobs import Job, controller, gpu_hours, make_jobs, window
from btrm.launch.limits import ClusterLimits, NoClusterError, ask_cluster, check
from btrm.launch.patrol import send_patrol
from btrm.launch.plan import Experiment, Step
from btrm.launch.runtime import image_problems, image_sha256, image_warnings
from btrm.launch.sbatch import Request, script
from btrm.launch.secrecy import is_secret
from btrm.launch.site import Container, Site
from btrm.launch.slurm import dependencies, fitting, live_jobs, send
from btrm.launch.snapshot import snapshot, snapshot_path
from btrm.launch.submission import PATROL, Plan, PlannedStep, SentJob, Submission, new_submission, submissions
from btrm.runs import REQUEST, RunPaths, StageRun
from btrm.stage_inputs import code_digests, references
from btrm.stage_table import get_stage
from btrm.stages import prepare

_LOG = logging.getLogger(__name__)
_DEFAULT_MAX_ARRAY = 1001  # Slurm's own default
_MISREAD = "%,:\\\n\r"  # --output expands %, --bind splits at both, PYTHONPATH at the colon


@dataclass(frozen=True, slots=True)
class Options:
    """What the submit command adds to a plan on a cluster. `problems` were found before the cluster was asked."""

    shards: Mapping[str, int]
    parallelism: int | None = None
    after: str = ""
    budget: float | None = None
    problems: tuple[str, ...] = ()


def plan_steps(experiment: Experiment, root: Path, options: Options) -> tuple[PlannedStep, ...]:
    """Return an experiment's steps as jobs are handed them: with what each needs and how its work is shared."""
    names = [step.key for step in experiment.steps]
    unknown = sorted(set(options.shards) - set(names))
    if unknown:
        raise ConfigError(f"--shards {', '.join(unknown)}: no such step; valid: {', '.join(names)}")
    planned: list[PlannedStep] = []
    for step in experiment.steps:
        elements = _elements(step, experiment, root, options)
        planned.append(
            PlannedStep(
                name=step.key,
                stage=step.stage,
                config=step.config.model_dump(mode="json"),
                resources=step.needs,
                needs=_needs(step, names[: names.index(step.key)]),
                elements=elements,
                parallelism=options.parallelism if elements else None,
                code=code_digests(step.config),
            )
        )
    return tuple(planned)


def _needs(step: Step, earlier: Sequence[str]) -> tuple[str, ...]:
    read = {ref[1:].partition("/")[0] for _, ref in references(step.config) if ref.startswith("@")}
    return tuple(name for name in earlier if name in read)


def _elements(step: Step, experiment: Experiment, root: Path, options: Options) -> int | None:
    """Return the size of a step's array: as asked, else a judge's checkpoints, one model load each; None for one job.

    Where its inputs are there, an array has no more elements than there are rows missing.
    """
    asked = options.shards.get(step.key, step.shards)
    if not get_stage(step.stage).shared:
        if asked is not None:
            raise ConfigError(f"--shards {step.key}={asked}: {step.stage} is one job; judge and teacher can be shared")
        return None
    if asked is None and step.stage == "judge":
        asked = _expected_checkpoints(step, experiment, root)
    if asked is None or asked < 2:
        return None
    missing = _missing_rows(step, experiment, root)
    elements = asked if missing is None else min(asked, missing)
    return elements if elements > 1 else None


def _missing_rows(step: Step, experiment: Experiment, root: Path) -> int | None:
    """Return how many rows of a shared step are missing; None while an earlier step has yet to make its inputs."""
    made = {ref[1:].partition("/")[0] for _, ref in references(step.config) if ref.startswith("@")}
    try:
        if not all(_made(earlier, root) for earlier in experiment.steps if earlier.key in made - {step.key}):
            return None
        prepare(step.key, step.config, step.needs, root, step.stage)
        directory = root / step.key
        run = StageRun(RunPaths(root), step.key, directory, step.needs, directory / REQUEST)
        return sum(unit.rows for unit in get_stage(step.stage).work(step.config, run))
    except ConfigError:
        return None


def _made(step: Step, root: Path) -> bool:
    return prepare(step.key, step.config, step.needs, root, step.stage).done


def _expected_checkpoints(step: Step, experiment: Experiment, root: Path) -> int:
    from btrm.judges.grid import JudgeConfig

    assert isinstance(step.config, JudgeConfig)
    return sum(_expected(reference, experiment, root) for reference in step.config.checkpoints.values())


def _expected(reference: str, experiment: Experiment, root: Path) -> int:
    """Return how many checkpoints a reference stands for: those there are, or those that its trainer is to leave."""
    if not glob.has_magic(reference):
        return 1
    there = len(RunPaths(root).matches(reference))
    name = reference[1:].partition("/")[0] if reference.startswith("@") else ""
    config: Config | None = next((s.config for s in experiment.steps if s.key == name), None)
    steps, every = getattr(config, "max_steps", None), getattr(config, "save_steps", None)
    return max(there, -(-steps // every) if steps and every else 1)


def cluster_plan(experiment: Experiment, root: Path, site: Site, options: Options) -> Plan:
    """Return the plan; nothing is written. Raises ConfigError for a path that Slurm would read otherwise."""
    if wrong := sorted(set(_MISREAD) & set(str(root))):
        raise ConfigError(
            f"--run {str(root)!r}: {' '.join(map(repr, wrong))} means something else to sbatch or PYTHONPATH"
        )
    steps = plan_steps(experiment, root, options)
    site_values = site.model_dump(mode="json")
    code = snapshot_path(root)
    return Plan(
        root=str(root),
        steps=steps,
        env=site.env,
        site=site_values,
        code=str(code),
        code_digest=code.name,
        **_identity(site.container),
        after=options.after or None,
    )


def _identity(container: Container | None) -> dict[str, str]:
    """Return what names the image; nothing where it has no digest, or is not there, which is told later."""
    if container is None or (digest := image_sha256(container)) is None:
        return {}
    return {"image_sha256": digest, **({"image_stat": image_stat(container.file)} if container.file else {})}


def submit(plan: Plan, site: Site, options: Options) -> tuple[Submission | None, list[SentJob]]:
    """Check everything, then send what is not complete; (None, []) where nothing is left to do.

    Raises ConfigError, with all that is wrong in one message, before anything is written or sent.
    """
    root = Path(plan.root)
    todo = unfinished(plan)
    if not todo:
        return None, []
    limits = ask_cluster(site)
    jobs = make_jobs(todo, limits.max_array, longest_min=limits.longest_min(site.seen_by(0)))
    problems = [
        *options.problems,
        *_refused(todo, root),
        *_problems(todo, jobs, site, limits),
        *_over_budget(jobs, options),
        *_under_way(root, todo),
    ]
    if problems:
        raise ConfigError(f"site {site.name}:\n" + "\n".join(dict.fromkeys(problems)))
    fitting(jobs, site, limits.room)
    for line in image_warnings(site):
        _LOG.warning("WARN %s", line)
    snapshot(root)
    submission = new_submission(root, plan)
    request = Request(submission, plan, site, _after(options))
    sent = send(jobs, request, limits.room)
    send_patrol(submission)
    return submission, sent


def _refused(todo: Sequence[PlannedStep], root: Path) -> list[str]:
    """Return what a step itself would refuse, as other settings than it was made with, where its inputs are there."""
    names = {step.name for step in todo}
    problems: list[str] = []
    for step in todo:
        if names & set(step.needs):
            continue
        try:
            prepare(step.name, get_stage(step.stage).config.build(step.config), step.resources, root, step.stage)
        except ConfigError as error:
            problems += [f"{step.name}: {line}" for line in str(error).splitlines()]
    return problems


def _problems(todo: Sequence[PlannedStep], jobs: Sequence[Job], site: Site, limits: ClusterLimits) -> list[str]:
    lines = [line for step in todo for line in several_nodes(step)]
    asked = {step.name: step.resources for step in todo}
    asked |= {job.key: job.resources for job in jobs if job.kind == "commit"}
    asked |= {"control": controller(todo).resources} if site.submit_from_nodes else {}
    lines += _once({name: check(limits, site, resources, "") for name, resources in asked.items()})
    return lines + image_problems(site)


def _once(found: Mapping[str, Sequence[str]]) -> list[str]:
    """Return each problem once, with the steps that have it."""
    steps: dict[str, list[str]] = {}
    for name, lines in found.items():
        for line in lines:
            steps.setdefault(line.removeprefix(": "), []).append(name)
    every = len(found) > 1
    return [f"{'every step' if every and len(n) == len(found) else ', '.join(n)}: {line}" for line, n in steps.items()]


def several_nodes(step: PlannedStep) -> list[str]:
    """Return what is wrong with a step's number of nodes."""
    if step.resources.nodes > 1 and not get_stage(step.stage).frozen_inputs:
        return [
            f"{step.name}: --nodes {step.resources.nodes}: only trainers run on several nodes; take --shards for more"
        ]
    return []


def _over_budget(jobs: Sequence[Job], options: Options) -> list[str]:
    asked = gpu_hours(jobs)
    if options.budget is None or asked <= options.budget:
        return []
    return [
        f"--budget {options.budget:g}: the plan asks for {asked:.1f} GPU-hours, were every job to use its whole time"
    ]


def _under_way(root: Path, todo: Sequence[PlannedStep]) -> list[str]:
    names = {step.name for step in todo}
    lines: list[str] = []
    for submission in submissions(root):
        if not submission.sent() or not (alive := live_jobs(submission)):
            continue
        if set(alive) == {f"btrm-{submission.name}-control"} and not unfinished(submission.plan()):
            continue  # it will find nothing to do, or that this submission is newer
        if same := names & {step.name for step in submission.plan().steps}:
            ids = ", ".join(sorted(set(alive.values())))
            lines.append(
                f"{', '.join(sorted(same))}: under way as {submission.name} (jobs {ids}); "
                f"btrm status {root}, or btrm cancel {root} first"
            )
    return lines


def describe(plan: Plan, site: Site, options: Options) -> str:
    """Return what would be sent: a table of jobs, each job's script, and what could not be checked. Sends nothing."""
    unchecked: list[str] = []
    problems: list[str] = []
    max_array, room = site.limits.max_array or _DEFAULT_MAX_ARRAY, site.limits.max_submit
    root, todo = Path(plan.root), unfinished(plan)
    try:
        limits = ask_cluster(site)
        room, unchecked = limits.room, limits.unknown
        jobs = make_jobs(todo, limits.max_array, longest_min=limits.longest_min(site.seen_by(0)))
        problems = _problems(todo, jobs, site, limits)
    except NoClusterError as error:
        unchecked = [f"{error}; arrays are cut at MaxArraySize {max_array}"]
        problems = [line for step in todo for line in several_nodes(step)]
        there = site.container is None or site.container.file is None or site.container.file.exists()
        (problems if there else unchecked).extend(image_problems(site))
        jobs = make_jobs(todo, max_array)
    problems = [*dict.fromkeys([*options.problems, *_refused(todo, root), *problems, *_over_budget(jobs, options)])]
    now = window(jobs, None if room is None else room - site.submit_from_nodes)
    lines = _table(jobs, now, plan)
    request = Request(Submission(root / ".jobs" / "NAME"), plan, site, _after(options))
    for job in jobs[:_SHOWN]:
        waits = dependencies(job, {other.key: f"<{other.key}>" for other in jobs}) or request.dependencies
        text = script(job, replace(request, dependencies=waits))
        lines += ["", f"--- {job.key}", text.rstrip()]
    lines += [f"--- … and {len(jobs) - _SHOWN} more like these"] if len(jobs) > _SHOWN else []
    if jobs and site.submit_from_nodes:
        waits = f"afterany:{':'.join(f'<{job.key}>' for job in now)}"
        lines += ["", "--- control", script(controller(plan.steps), replace(request, dependencies=waits)).rstrip()]
        patrol = replace(request, dependencies="", begin_s=site.patrol_s)
        lines += ["", "--- patrol", script(controller(plan.steps, PATROL), patrol).rstrip()] if site.patrol_s else []
    unchecked = [*unchecked, *image_warnings(site)]
    for title, items in (("could not be checked:", unchecked), ("would be refused:", problems)):
        lines += ["", title, *(f"  {item}" for item in items)] if items else []
    return "\n".join(lines)


_SHOWN = 40


def _after(options: Options) -> str:
    return f"afterok:{options.after}" if options.after else ""


def _table(jobs: Sequence[Job], now: Sequence[Job], plan: Plan) -> list[str]:
    complete = [step.name for step in plan.steps if step.name not in {job.step for job in jobs}]
    lines = [f"complete: {', '.join(complete)}"] if complete else []
    lines.append(f"{'job':<18}{'elements':>9}{'nodes':>6}{'gpus':>6}{'cpus':>6}{'GB':>6}{'min':>7}{'GPU-h':>8}  after")
    for job in jobs:
        need = job.resources
        lines.append(
            f"{job.key:<18}{job.count if job.kind == 'array' else '-':>9}{need.nodes:>6}{need.gpus:>6}{need.cpus:>6}"
            f"{need.mem_gb:>6}{need.time_min:>7}{gpu_hours([job]):>8.1f}  {', '.join((*job.after, *job.behind))}"
        )
    total = sum(job.count for job in jobs)
    lines.append(f"{len(jobs)} sbatch calls, {total} jobs, {gpu_hours(jobs):.1f} GPU-hours at most")
    if (first := sum(job.count for job in now)) < total:
        lines.append(f"the queue has room for {first} of them now; a small job sends the next when these have ended")
    return lines


def withheld(environ: Mapping[str, str]) -> list[str]:
    """Return the names of secrets in the environment that jobs are not handed and `.env` does not hold."""
    from btrm.config import read_env_file

    dotenv = Path(".env")
    known = read_env_file(dotenv) if dotenv.is_file() else {}
    return sorted(name for name, value in environ.items() if value and is_secret(name, value) and name not in known)
