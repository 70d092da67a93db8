"""Run a stage, or a whole experiment: `python -m btrm.submit STAGE|pipeline [flags]`.

One path for every stage and every executor: flags -> validated config -> request on disk -> the job reads the request.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from btrm.config import ConfigError
from btrm.environment import load_environment
from btrm.judges.judge_config import JudgeConfig
from btrm.launch.arguments import make_parser, usage
from btrm.launch.asked_steps import PIPELINE, asked_steps
from btrm.launch.evaluation import EVAL
from btrm.launch.flags import normalise
from btrm.launch.local import run_plan, start_background
from btrm.launch.plan import (
    DEFAULT_EXPERIMENT,
    Experiment,
    Step,
    get_experiment,
)
from btrm.launch.secrecy import refuse_keys
from btrm.launch.site import Site, apply_umask, check_resources, default_site, load_site
from btrm.launch.submission import Plan, PlannedStep, new_submission, submissions
from btrm.publishing import write_json
from btrm.report.closing import ending
from btrm.runs import REQUEST, RunPaths, StageError, StageRun, read_manifest
from btrm.stage_table import get_stage
from btrm.stages import prepare, settings_problems
from btrm.stopping import Stopped, listening

_ORIGIN = "experiment.json"
_LOG = logging.getLogger(__name__)
_INTERRUPTED = 130  # as a shell says of ^C


def main(argv: Sequence[str] | None = None) -> int:
    """Submit; return the exit status: 0 done, 2 the request was wrong, 1 a stage failed."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    try:
        for note in load_environment(os.environ, Path(".env")):
            _LOG.info("%s", note)
        words = list(sys.argv[1:] if argv is None else argv)
        refuse_keys(words)
        return _submit(normalise(words))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, Stopped) as error:
        print(f"stopped{f' ({error})' if str(error) else ''}; what is done is on disk, the same command goes on")
        return _INTERRUPTED
    except BrokenPipeError:  # `--dry-run | head` is no error
        sys.stderr.close()
        return 0
    except StageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # a full disk, a read-only directory: what is done stays, a rerun goes on from there
        print(f"error: {error}; nothing complete is lost, rerun to go on", file=sys.stderr)
        return 1


def _submit(argv: list[str]) -> int:
    if not argv or argv[0] in {"-h", "--help"}:
        print(usage())
        return 0 if argv else 2
    command = argv[0].replace("-", "_")
    if command not in {PIPELINE, EVAL}:
        get_stage(command)
    args = make_parser(command).parse_args(argv[1:])
    if command == "judge" and args.best:
        if args.name or args.estimate:
            raise ConfigError("--best goes with neither --name nor --estimate: it brings evaluate and summarize")
        command = EVAL
    origin = _origin(args)
    experiment = get_experiment(origin)
    root = Path(args.run or f"runs/{experiment.name}").resolve()
    chosen = asked_steps(command, experiment, root, args)
    if getattr(args, "estimate", False):
        print(_estimate(chosen.steps[0], root))
        return 0
    site = _site(args)
    if getattr(args, "watch", None) is None or args.dry_run:
        return _start(chosen, root, site, args, origin)
    return _watch(chosen, root, site, args, origin)


def _watch(chosen: Experiment, root: Path, site: Site, args: argparse.Namespace, origin: str) -> int:
    """Judge checkpoints as they come, each round as a submission of its own that is waited for."""
    from btrm.operate.watch import Watch

    judge, *later = chosen.steps
    assert isinstance(judge.config, JudgeConfig)
    if site.executor == "local":
        raise ConfigError("--watch stays in the foreground: --executor inline, or slurm")
    if args.watch <= 0:
        raise ConfigError(f"--watch {args.watch:g}: expected a number of seconds above 0")
    args.wait = True

    def judged(members: dict[str, str]) -> int:
        config = judge.config.override([f"checkpoints={json.dumps(members)}"])
        steps = (replace(judge, config=config), *later)
        if site.executor == "slurm":
            _wait_for_rounds(root, {step.key for step in steps}, site)
        return _start(replace(chosen, steps=steps), root, site, args, origin)

    return Watch(root, judge.config.checkpoints, judged, args.watch).run()


def _wait_for_rounds(root: Path, names: set[str], site: Site) -> None:
    """Wait for the jobs of a round that a watcher before this one has sent."""
    from btrm.launch.slurm import live_jobs

    for submission in submissions(root):
        mine = {step.name for step in submission.plan().steps} & names and submission.sent()
        while mine and live_jobs(submission) and submission.stopped() is None:
            time.sleep(site.queue_interval_s)


def _start(chosen: Experiment, root: Path, site: Site, args: argparse.Namespace, origin: str) -> int:
    if site.executor == "slurm":
        return _on_cluster(chosen, root, site, args, origin)
    if args.dry_run:
        print(dry_run(chosen, root, site))
        return 0
    _refuse_what_cannot_run(chosen, root, site)
    return _run(chosen, root, site, origin)


def _estimate(step: Step, root: Path) -> str:
    paths = RunPaths(root)
    directory = paths.stage(step.key)
    run = StageRun(paths, step.key, directory, step.needs, directory / REQUEST)
    return get_stage(step.stage).estimate(step.config, run)


def _site(args: argparse.Namespace) -> Site:
    """Return the site with the flags that change it."""
    site = load_site(args.site or default_site())
    given = {"executor": args.executor, "partition": args.partition, "account": args.account, "qos": args.qos}
    update: dict[str, object] = {name: value for name, value in given.items() if value is not None}
    update |= {"cpu_partition": None} if args.partition else {}  # every job goes where the flag says
    wrong = [item for item in args.slurm if not item.partition("=")[2]]
    if wrong:
        raise ConfigError(f"--slurm {', '.join(wrong)}: expected key=value, as in --slurm reservation=tuesday")
    if args.slurm:
        update["slurm"] = {**site.slurm, **dict(item.split("=", 1) for item in args.slurm)}
    return Site.build({**site.model_dump(), **update}, f"site {site.name}") if update else site


def _on_cluster(experiment: Experiment, root: Path, site: Site, args: argparse.Namespace, origin: str) -> int:
    """Show or send a plan on Slurm."""
    from btrm.launch.api_steps import api_problems
    from btrm.launch.cluster import Options, cluster_plan, describe, submit, withheld
    from btrm.launch.offline import missing_offline

    shards = _shards(args.shards, experiment)
    offline = missing_offline(experiment, {**os.environ, **site.env}, root, origin, args.site) if site.offline else []
    parallelism = args.array_parallelism or site.array_parallelism
    problems = (*offline, *api_problems(experiment, root, site), *_plan_problems(experiment, root))
    options = Options(shards, parallelism, _after(args.after or ""), args.budget, problems)
    plan = cluster_plan(experiment, root, site, options)
    if args.dry_run:
        print(f"{experiment.name} in {root}, site {site.name}\n\n{describe(plan, site, options)}")
        return 0
    for name in withheld(os.environ):
        _LOG.info("%s is not handed to jobs; they read it from .env (mode 0600) in this directory", name)
    apply_umask(site.umask)
    submission, sent = submit(plan, site, options)
    if submission is None:
        print(f"{root}: complete with these settings, nothing to do")
        return 0
    write_json(root / _ORIGIN, {"experiment": origin})
    steps = ", ".join(f"{job.key} {job.job_id}" for job in sent if job.kind != "control")
    print(f"submitted {submission.name}: {sum(job.count for job in sent)} jobs ({steps})")
    print(f"watch:   btrm status {root}\nlogs:    btrm logs {root}")
    if not args.wait:
        return 0
    from btrm.launch.wait import wait

    try:
        return wait(submission, site)
    except KeyboardInterrupt:
        print(f"\nthe jobs go on; btrm status {root}, or btrm cancel {root}")
        return 130


def _after(given: str) -> str:
    if given and not re.fullmatch(r"\d+(_\d+)?(:\d+(_\d+)?)*", given):
        raise ConfigError(f"--after {given}: expected the number of a job, as in --after 123, 123_4 or 123:124")
    return given


def _shards(given: Sequence[str], experiment: Experiment) -> dict[str, int]:
    """Read --shards 16 (of the step that can be shared, or of all that can) and --shards STEP=16."""
    shards: dict[str, int] = {}
    for item in given:
        step, equals, count = item.rpartition("=")
        if not count.isdecimal() or int(count) < 1:
            raise ConfigError(f"--shards {item}: expected a number, or STEP=number")
        names = [step] if equals else [s.key for s in experiment.steps if get_stage(s.stage).shared]
        shards |= dict.fromkeys(names, int(count))
    return shards


def _run(experiment: Experiment, root: Path, site: Site, origin: str) -> int:
    planned = tuple(
        PlannedStep(name=s.key, stage=s.stage, config=s.config.model_dump(mode="json"), resources=s.needs)
        for s in experiment.steps
    )
    if len(planned) == 1:  # everything that can be known is checked before anything is written or started
        step = experiment.steps[0]
        if prepare(step.key, step.config, step.needs, root, step.stage).done:
            print(f"{RunPaths(root).stage(step.key)}: complete with these settings, nothing to do")
            return 0
    write_json(root / _ORIGIN, {"experiment": origin})
    submission = new_submission(root, Plan(root=str(root), steps=planned, env=site.env))
    if site.executor == "local":
        log = start_background(submission, sum(step.needs.time_min for step in experiment.steps))
        print(f"started in the background; log: {log}\nwatch:   btrm show {root}")
        return 0
    with listening({signal.SIGTERM: "terminated", signal.SIGHUP: "the terminal is gone"}):
        run_plan(submission)
    last = experiment.steps[-1]
    print(ending(root, last.stage, last.key))
    return 0


def _origin(args: argparse.Namespace) -> str:
    """Return the experiment's name: the one given, the one that the run was made by, or the default."""
    if args.experiment:
        file, colon, function = args.experiment.rpartition(":")
        return f"{Path(file).resolve()}:{function}" if colon else args.experiment
    recorded = Path(args.run) / _ORIGIN if args.run else None
    if recorded is not None and recorded.is_file():
        return json.loads(recorded.read_text())["experiment"]
    return DEFAULT_EXPERIMENT


def _refuse_what_cannot_run(experiment: Experiment, root: Path, site: Site) -> None:
    """Raise ConfigError where this machine cannot give what a step still to be run asks for."""
    problems = [f"{step.key}: {problem}" for step in experiment.steps for problem in check_resources(step.needs)]
    problems += _plan_problems(experiment, root)
    if problems:
        raise ConfigError(f"site {site.name}:\n" + "\n".join(problems))


def _plan_problems(experiment: Experiment, root: Path) -> list[str]:
    """Return what no run of this plan could get past; of a single stage, what its inputs lack is told when prepared."""
    settings = [p for s in experiment.steps for p in settings_problems(s.key, s.config, s.needs, root, s.stage)]
    lacking = experiment.problems(RunPaths(root)) if len(experiment.steps) > 1 or not root.exists() else []
    nothing = [f"{root}: no such run, and this reads what a run has made"] if lacking and not root.exists() else []
    return [*settings, *nothing, *lacking]


def dry_run(experiment: Experiment, root: Path, site: Site) -> str:
    """Return the plan as text: a line a step, each step's config, and what could not be checked. Starts nothing."""
    paths = RunPaths(root)
    lines = [f"{experiment.name} in {root}, site {site.name}", ""]
    lines.append(f"{'step':<12}{'stage':<12}{'nodes':>6}{'gpus':>6}{'cpus':>6}{'min':>7}  state")
    unchecked: list[str] = []
    for step in experiment.steps:
        need = step.needs
        try:
            state = prepare(step.key, step.config, need, root, step.stage).note
        except ConfigError as error:
            state = "waits for earlier steps"
            unchecked.append(f"{step.key}: {error}")
        if read_manifest(paths.stage(step.key)) is not None and state == "waits for earlier steps":
            state = "refused, see below"
        lines.append(
            f"{step.key:<12}{step.stage:<12}{need.nodes:>6}{need.gpus:>6}{need.cpus:>6}{need.time_min:>7}  {state}"
        )
    for step in experiment.steps:
        lines += ["", f"[{step.key}]", json.dumps(step.config.model_dump(mode="json"), ensure_ascii=False, indent=1)]
    resources = [f"{s.key}: {problem}" for s in experiment.steps for problem in check_resources(s.needs)]
    for title, items in (("could not be checked:", unchecked), ("this machine cannot give:", resources)):
        lines += ["", title, *(f"  {line}" for item in items for line in item.splitlines())] if items else []
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
