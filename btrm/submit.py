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
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from btrm.config import ConfigError
from btrm.environment import load_environment
from btrm.launch.flags import Parser, add_config_flags, assignments, normalise
from btrm.launch.local import run_plan, start_background
from btrm.launch.plan import (
    DEFAULT_EXPERIMENT,
    Experiment,
    Step,
    get_experiment,
    published_names,
    read_preset,
)
from btrm.launch.secrecy import refuse_keys
from btrm.launch.site import Site, apply_umask, check_resources, default_site, load_site
from btrm.launch.submission import Plan, PlannedStep, new_submission
from btrm.report.closing import closing
from btrm.runs import REQUEST, Resources, RunPaths, StageError, StageRun, read_manifest, write_json
from btrm.stages import STAGES, get_stage, prepare, settings_problems
from btrm.stopping import Stopped, listening

_ORIGIN = "experiment.json"
_LOG = logging.getLogger(__name__)
_OF_PROMPT = frozenset({"teacher", "sft_data"})
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
        print(_usage())
        return 0 if argv else 2
    stage = argv[0].replace("-", "_")
    if stage != "pipeline":
        get_stage(stage)
    args = _parser(stage).parse_args(argv[1:])
    origin = _origin(args)
    experiment = get_experiment(origin)
    root = Path(args.run or f"runs/{experiment.name}").resolve()
    steps = experiment.steps if stage == "pipeline" else (_one_step(stage, experiment, args),)
    chosen = replace(experiment, steps=_with_resources(steps, args))
    if stage == "pipeline":
        chosen = chosen.override(_assigned(args))
    if stage != "pipeline" and args.estimate:
        print(_estimate(chosen.steps[0], root))
        return 0
    site = _site(args)
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
    ended_in_a_table = experiment.steps[-1].stage == "summarize"
    print(f"\n{closing(root)}" if ended_in_a_table else f"{root}: done. See: btrm show {root}")
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


def _one_step(stage: str, experiment: Experiment, args: argparse.Namespace) -> Step:
    """Return one stage's step: the experiment's own where it has one, else the stage's defaults; flags win."""
    candidates = [step for step in experiment.steps if step.stage == stage]
    found = next((step for step in candidates if step.key == args.name), next(iter(candidates), None))
    config = found.config if found else get_stage(stage).config.build({}, stage)
    mine = set(published_names(type(config)))
    if stage != "grpo":  # a preset's LEARNING_RATE is the published trainer's, not the warm-up's
        mine -= set(published_names(get_stage("grpo").config))
    preset = [item for item in _preset(args) if item.partition("=")[0] in mine or item.startswith(f"{stage}.")]
    preset = [item.removeprefix(f"{stage}.") for item in preset]
    given = [*preset, *args.set, *assignments(args)]
    config = config.override([*_prompt_of_run(stage, experiment, args.run, given), *given], stage)
    return Step(stage, config, found.resources if found else None, args.name or "")


def _prompt_of_run(stage: str, experiment: Experiment, run: str | None, given: Sequence[str]) -> list[str]:
    """Return the prompt that the run's pairs were made with, where the experiment does not say it.

    A student is warmed up on the prompt that it will be trained on.
    """
    pairs = read_manifest(RunPaths(Path(run)).stage("pairs")) if run else None
    if stage not in _OF_PROMPT or pairs is None or any(item.startswith("prompt=") for item in given):
        return []
    prompt = str(pairs.config["prompt"])
    its_own = {step.stage: step.config.model_dump().get("prompt") for step in experiment.steps}
    if prompt == its_own.get("pairs") and stage in its_own:
        return []
    _LOG.info("prompt %s, as this run's pairs (another: --prompt)", prompt)
    return [f"prompt={prompt}"]


def _preset(args: argparse.Namespace) -> list[str]:
    return [item for path in args.preset for item in read_preset(Path(path))]


def _assigned(args: argparse.Namespace) -> list[str]:
    return [*_preset(args), *args.set]


def _with_resources(steps: Sequence[Step], args: argparse.Namespace) -> tuple[Step, ...]:
    """Apply the resource flags. In a pipeline, GPUs go to the stages that use them, several nodes to the trainers."""
    given = {"nodes": args.nodes, "gpus": args.gpus, "cpus": args.cpus, "mem_gb": args.mem_gb, "time_min": args.time}
    update = {name: value for name, value in given.items() if value is not None}
    changed: list[Step] = []
    for step in steps:
        stage, mine = get_stage(step.stage), dict(update)
        if len(steps) > 1 and not stage.resources.gpus:
            mine.pop("gpus", None)
        if len(steps) > 1 and not stage.frozen_inputs:
            mine.pop("nodes", None)
        changed.append(replace(step, resources=Resources.build({**step.needs.model_dump(), **mine})))
    return tuple(changed)


def _refuse_what_cannot_run(experiment: Experiment, root: Path, site: Site) -> None:
    """Raise ConfigError where this machine cannot give what a step still to be run asks for."""
    problems = [f"{step.key}: {problem}" for step in experiment.steps for problem in check_resources(step.needs)]
    problems += _plan_problems(experiment, root)
    if problems:
        raise ConfigError(f"site {site.name}:\n" + "\n".join(problems))


def _plan_problems(experiment: Experiment, root: Path) -> list[str]:
    """Return what no run of this plan could get past; of a single stage, what its inputs lack is told when prepared."""
    settings = [p for s in experiment.steps for p in settings_problems(s.key, s.config, s.needs, root, s.stage)]
    return settings + (experiment.problems(RunPaths(root)) if len(experiment.steps) > 1 else [])


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


def _parser(stage: str) -> Parser:
    summary = "every step of an experiment" if stage == "pipeline" else get_stage(stage).summary
    prog = f"python -m btrm.submit {stage}"
    parser = Parser(prog=prog, usage=f"{prog} [flags]", description=summary, allow_abbrev=False)
    run = parser.add_argument_group("run")
    run.add_argument("--run", metavar="DIR", help="the run's directory (default: runs/EXPERIMENT)")
    run.add_argument("--experiment", metavar="NAME", help=f"where settings come from (default: {DEFAULT_EXPERIMENT})")
    run.add_argument("--set", metavar="FIELD=VALUE", action="append", default=[], help="override; published names too")
    run.add_argument("--preset", metavar="FILE.env", action="append", default=[], help="published names from a file")
    run.add_argument("--dry-run", action="store_true", help="print the plan and the configs, start nothing")
    where = parser.add_argument_group("resources")
    where.add_argument(
        "--site", metavar="NAME", help="a site profile (default: $BTRM_SITE; slurm where sbatch is on PATH; local)"
    )
    where.add_argument("--executor", choices=("inline", "local", "slurm"), help="foreground, background, or a cluster")
    where.add_argument("--nodes", type=int, metavar="N", help="of each trainer; every other stage runs on one")
    where.add_argument("--gpus", type=int, metavar="M", help="per node")
    where.add_argument("--cpus", type=int, metavar="N", help="per node")
    where.add_argument("--mem-gb", type=int, metavar="N", help="per node, in GB")
    where.add_argument(
        "--time", type=int, metavar="MINUTES", help="a job's limit; at the limit it goes on where it was"
    )
    slurm = parser.add_argument_group("on Slurm")
    slurm.add_argument(
        "--partition", metavar="NAME", help="for every job, instead of the site's; a,b: whichever starts first"
    )
    slurm.add_argument("--account", metavar="NAME", help="who is charged (default: the site's, else the cluster's)")
    slurm.add_argument("--qos", metavar="NAME", help="the quality of service (default: the site's, else the cluster's)")
    slurm.add_argument("--slurm", metavar="KEY=VALUE", action="append", default=[], help="any other sbatch option")
    slurm.add_argument(
        "--shards",
        metavar="[STEP=]N",
        action="append",
        default=[],
        help="array elements that share a judge's or teacher's work (default: a judge's checkpoints; a teacher: one)",
    )
    slurm.add_argument("--array-parallelism", type=int, metavar="N", help="elements of an array that run at a time")
    slurm.add_argument("--after", metavar="JOBID", help="start after this job has succeeded")
    slurm.add_argument("--budget", type=float, metavar="GPU_HOURS", help="refuse a plan that asks for more")
    slurm.add_argument("--wait", action="store_true", help="wait for the end; ^C leaves the jobs running")
    if stage != "pipeline":
        run.add_argument("--name", metavar="NAME", help="the step's directory in the run, where a stage runs twice")
        run.add_argument("--estimate", action="store_true", help="tell calls, tokens, dollars and time, start nothing")
        add_config_flags(parser, get_stage(stage).config)
    return parser


def _usage() -> str:
    lines = ["usage: python -m btrm.submit STAGE|pipeline [flags]   (STAGE --help lists its flags)", "", "stages:"]
    lines += [f"  {name:<11}{stage.summary}" for name, stage in STAGES.items()]
    lines += [f"  {'pipeline':<11}every step of an experiment (btrm experiments lists them)"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
