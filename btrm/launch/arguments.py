"""The flags of `python -m btrm.submit`: those of every command, and those of the stage's own config."""

from __future__ import annotations

from typing import Any

from btrm.launch.evaluation import EVAL, EVAL_STEPS, LATER
from btrm.launch.flags import Parser, add_config_flags
from btrm.launch.plan import DEFAULT_EXPERIMENT
from btrm.stage_table import STAGES, get_stage

WATCH_S = 30.0
_EVAL_SUMMARY = "judge, evaluate, summarize: the table, and which checkpoint is the best"
_BEST = {
    "judge": "then evaluate and summarize too, and name the best",
    EVAL: "name the best checkpoint (eval always does)",
}


def make_parser(stage: str) -> Parser:
    """Return the parser of a stage, of eval, or of pipeline."""
    summaries = {"pipeline": "every step of an experiment", EVAL: _EVAL_SUMMARY}
    summary = summaries.get(stage) or get_stage(stage).summary
    prog = f"python -m btrm.submit {stage}"
    parser = Parser(prog=prog, usage=f"{prog} [flags]", description=summary, allow_abbrev=False)
    _add_run_flags(parser, stage)
    _add_resource_flags(parser)
    _add_slurm_flags(parser)
    if stage == EVAL:
        groups: dict[str, Any] = {}
        for step in EVAL_STEPS:
            add_config_flags(parser, get_stage(step).config, LATER.get(step), groups)
    elif stage != "pipeline":
        add_config_flags(parser, get_stage(stage).config)
    return parser


def _add_run_flags(parser: Parser, stage: str) -> None:
    run = parser.add_argument_group("run")
    run.add_argument("--run", metavar="DIR", help="the run's directory (default: runs/EXPERIMENT)")
    run.add_argument("--experiment", metavar="NAME", help=f"where settings come from (default: {DEFAULT_EXPERIMENT})")
    run.add_argument("--set", metavar="FIELD=VALUE", action="append", default=[], help="override; published names too")
    run.add_argument("--preset", metavar="FILE.env", action="append", default=[], help="published names from a file")
    run.add_argument("--dry-run", action="store_true", help="print the plan and the configs, start nothing")
    if stage in _BEST:
        run.add_argument(
            "--watch",
            metavar="SECONDS",
            type=float,
            nargs="?",
            const=WATCH_S,
            help=f"judge checkpoints as training commits them, looking every so often (default {WATCH_S:.0f}), "
            "until it has ended",
        )
        run.add_argument("--best", action="store_true", help=_BEST[stage])
    if stage not in {"pipeline", EVAL}:
        run.add_argument("--name", metavar="NAME", help="the step's directory in the run, where a stage runs twice")
        run.add_argument("--estimate", action="store_true", help="tell calls, tokens, dollars and time, start nothing")


def _add_resource_flags(parser: Parser) -> None:
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


def _add_slurm_flags(parser: Parser) -> None:
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


def usage() -> str:
    """Return what the command says of itself."""
    lines = ["usage: python -m btrm.submit STAGE|pipeline [flags]   (STAGE --help lists its flags)", "", "stages:"]
    lines += [f"  {name:<11}{stage.summary}" for name, stage in STAGES.items()]
    lines += ["", "several in one:", f"  {EVAL:<11}{_EVAL_SUMMARY}"]
    lines += [f"  {'pipeline':<11}every step of an experiment (btrm experiments lists them)"]
    return "\n".join(lines)
