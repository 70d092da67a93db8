"""The `btrm` command. Its help answers at once: everything is imported inside the command that needs it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from btrm.records import PreferencePair


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status (2: the request was wrong)."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["submit"]:
        from btrm.submit import main as submit

        return submit(words[1:])
    if words[:1] == ["cluster"]:
        from btrm.onebox.cli import main as cluster

        return cluster(words[1:])
    if words[:1] == ["container"]:
        from btrm.container.cli import main as container

        return container(words[1:])
    try:
        if words[:1] == ["data"]:
            from btrm.data.cli import main as data

            return data(words[1:])
        args = _parser().parse_args(_with_sort(words) or ["--help"])
        return args.function(args)
    except BrokenPipeError:  # `btrm show RUN | head` is no error
        sys.stderr.close()
        return 0
    except Exception as error:
        from btrm.config import ConfigError

        if not isinstance(error, ConfigError):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2


def _with_sort(words: list[str]) -> list[str]:
    """Return the words with `--sort -accuracy` as one: argparse takes a value that begins with - for an option."""
    place = words.index("--sort") if "--sort" in words[:-1] else len(words)
    return words[:place] + ["=".join(words[place : place + 2])] * (place < len(words)) + words[place + 2 :]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="btrm", description="From preference data to an evaluated judge.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    commands.add_parser("submit", help="run a stage or a whole experiment (same as python -m btrm.submit)")
    commands.add_parser("cluster", help="a real Slurm on this machine, with faults on request")
    commands.add_parser("container", help="the image that pins everything: build, try, verify, keep it")
    commands.add_parser("data", help="what files of preferences hold, and their pairs for another trainer")
    run = _command(commands, "show", _show, "what a run holds, and how far it is")
    run.add_argument("run", type=Path)
    run = _command(commands, "best", _best, "which checkpoint of a run is the best, and how sure that is")
    run.add_argument("run", type=Path)
    run = _command(commands, "verify", _verify, "rehash everything that a run's manifests claim")
    run.add_argument("run", type=Path)
    runs = _command(commands, "summarize", _summarize, "one table of all evaluated runs below some folders")
    runs.add_argument("dirs", nargs="+", type=Path, metavar="DIR", help="runs, or folders with runs below")
    runs.add_argument("--columns", default="", metavar="A,B", help="what to show, in this order (default: the usual)")
    runs.add_argument("--sort", metavar="COLUMN", help="order by a column, -COLUMN from the top")
    runs.add_argument("--baseline", metavar="RUN", help="compare with this run, or RUN:CHECKPOINT, pair by pair")
    runs.add_argument("--select-on", "--select_on", metavar="NAME", help="data set that a run's best is selected on")
    runs.add_argument("--out", type=Path, metavar="DIR", help="write summary.csv, summary.md and summary_long.csv")
    prompts = _command(commands, "prompts", _prompts, "list the judge's and the teacher's prompts, or show one")
    prompts.add_argument("action", nargs="?", choices=("list", "show"), default="list")
    prompts.add_argument("name", nargs="?", help="a prompt's name, or FILE.py:NAME; a teacher's after `teacher:`")
    prompts.add_argument("--dataset", default="toy", help="a data set's name, or FILE.py:function")
    prompts.add_argument("--split", default="train")
    prompts.add_argument("--row", type=int, default=0, help="which pair, from 0")
    prompts.add_argument("--scale", choices=("score5", "score100"), default="score100", help="of a teacher's prompt")
    prompts.add_argument(
        "--layout", choices=("pointwise", "batched", "pairwise"), help="of a teacher's prompt (default: each)"
    )
    prompts.add_argument("--data-files", "--data_files", nargs="*", default=(), help="files instead of the hub")
    experiments = _command(commands, "experiments", _experiments, "list the experiments, or show one's plan")
    experiments.add_argument("action", nargs="?", choices=("list", "show"), default="list")
    experiments.add_argument("name", nargs="?")
    _command(commands, "sites", _sites, "list the site profiles")
    site = _command(commands, "site", _site, "write a site profile by asking the cluster")
    site.add_argument("action", choices=("init",))
    site.add_argument("name", nargs="?", help="the profile's name (default: the cluster's)")
    site.add_argument(
        "--out", type=Path, metavar="FILE.toml", help="where to (default: ~/.config/btrm/sites/NAME.toml)"
    )
    site.add_argument("--force", action="store_true", help="overwrite the file")
    doctor = _command(commands, "doctor", _doctor, "check a site: one line a check, with the fix")
    doctor.add_argument(
        "--site", metavar="NAME", help="default: $BTRM_SITE, else slurm where there is sbatch, else local"
    )
    doctor.add_argument("--image", metavar="IMAGE", help="an image alone, started on this machine, instead of a site")
    doctor.add_argument("--on-node", action="store_true", help="also from inside a short job, and compare")
    doctor.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs that the job asks for (default 0)")
    doctor.add_argument("--run", type=Path, default=Path("runs"), metavar="DIR", help="where runs are kept")
    doctor.add_argument("--experiment", metavar="NAME", help="offline sites: is what it takes from the hub there?")
    doctor.add_argument("--wait", type=int, default=600, metavar="SECONDS", help="how long a node may take to be free")
    fetch = _command(
        commands, "prefetch", _prefetch, "bring an experiment's models and data for nodes without internet"
    )
    fetch.add_argument("--experiment", metavar="NAME", required=True)
    fetch.add_argument("--site", metavar="NAME", help="whose cache: HF_HOME in its [env] (default: as for submit)")
    fetch.add_argument("--run", type=Path, metavar="DIR", help="leave out what this run's complete steps took")
    rewards = _command(commands, "rewards", _rewards, "score batches of completions with a published reward")
    rewards.add_argument(
        "--batches",
        required=True,
        metavar="F.jsonl",
        help="a line: reward, parser, params, completions, pair_id, side, preferred_side; - is stdin",
    )
    from btrm.operate.cli import add_commands

    add_commands(lambda name, function, text: _command(commands, name, function, text))
    return parser


def _command(commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, function: object, text: str):  # pyright: ignore[reportPrivateUsage]
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(function=function)
    return parser


def _show(args: argparse.Namespace) -> int:
    from btrm.show import show

    print(show(args.run))
    return 0


def _best(args: argparse.Namespace) -> int:
    from btrm.config import ConfigError
    from btrm.runs import read_manifest

    manifest = read_manifest(args.run / "summarize")
    if manifest is None:
        raise ConfigError(f"{args.run}: no summary; first: python -m btrm.submit eval --run {args.run}")
    if "best" not in manifest.results:
        raise ConfigError(f"{args.run}: none is called the best: one checkpoint alone, or no data set to select on")
    print(manifest.results["best"])
    return 0


def _verify(args: argparse.Namespace) -> int:
    from btrm.runs import MANIFEST
    from btrm.stages import verify_run

    problems = verify_run(args.run)
    if not problems:
        count = len(list(args.run.rglob(MANIFEST)))
        print(f"{args.run}: {count} manifests, every file as claimed")
    for problem in problems:
        print(problem)
    return 1 if problems else 0


def _summarize(args: argparse.Namespace) -> int:
    from btrm.report.tree_cli import main as summarize

    return summarize(args)


def _prompts(args: argparse.Namespace) -> int:
    from btrm.prompts import PROMPTS, get_prompt
    from btrm.teacher.teacher_prompts import TEACHER_PROMPTS

    if args.action == "list":
        for spec in PROMPTS.values():
            print(f"{spec.name:<22}{spec.parser.name:<16}{spec.summary}")
        for prompt in TEACHER_PROMPTS.values():
            print(f"{_TEACHER + prompt.name:<22}{'each layout':<16}{prompt.summary}")
        return 0
    from itertools import islice

    from btrm.config import ConfigError
    from btrm.data.sources import iter_pairs
    from btrm.environment import load_environment

    load_environment(os.environ, Path(".env"))
    if args.name is None:
        raise ConfigError("btrm prompts show NAME: which prompt? (btrm prompts lists them)")
    if args.row < 0:
        raise ConfigError(f"--row {args.row}: pairs count from 0")
    found = iter_pairs(args.dataset, args.split, limit=args.row + 2, data_files=args.data_files)
    if not (pairs := list(islice(found, args.row, None))):
        raise ConfigError(f"--row {args.row}: {args.dataset} {args.split} has fewer pairs")
    if args.name.startswith(_TEACHER):
        return _teacher_prompt(args, pairs)
    prompt, pair = get_prompt(args.name), pairs[0]
    for side, response in enumerate(pair.responses):
        for message in prompt.messages(pair.context, response):
            print(f"--- {pair.label_id} side {side}, {message['role']}\n{message['content']}")
    return 0


_TEACHER = "teacher:"  # goes before the names of teachers' prompts


def _teacher_prompt(args: argparse.Namespace, pairs: Sequence[PreferencePair]) -> int:
    from btrm.teacher.show_prompt import parts, shown_calls

    for what, call in shown_calls(args.name.removeprefix(_TEACHER), pairs, args.scale, args.layout):
        for role, text in parts(call):
            print(f"--- {what}, {role}\n{text}")
    return 0


def _experiments(args: argparse.Namespace) -> int:
    from btrm.launch.plan import experiment_table, get_experiment

    if args.action == "list":
        table = experiment_table()
        width = max(map(len, table)) + 2
        for name, function in table.items():
            print(f"{name:<{width}}{function().summary}")
        return 0
    from btrm.config import ConfigError
    from btrm.launch.site import load_site
    from btrm.submit import dry_run

    if args.name is None:
        raise ConfigError("btrm experiments show NAME: which experiment? (btrm experiments lists them)")
    experiment = get_experiment(args.name)
    print(dry_run(experiment, Path("runs") / experiment.name, load_site("local")))
    return 0


def _sites(_: argparse.Namespace) -> int:
    from btrm.launch.site import site_table

    print(site_table())
    return 0


def _site(args: argparse.Namespace) -> int:
    from btrm.operate.site_init import init

    path = init(args.name, args.out, force=args.force)
    name = path if args.out else path.stem
    print(f"{path.read_text()}\nwritten to {path}; now: btrm doctor --site {name}")
    return 0


def _doctor(args: argparse.Namespace) -> int:
    from btrm.operate.doctor import Request, examine

    what = {"site": args.site, "image": args.image, "experiment": args.experiment}
    where = {"run": args.run, "gpus": args.gpus, "on_node": args.on_node, "wait_s": args.wait}
    failed = 0
    for check in examine(Request(**what, **where)):
        print(check, flush=True)
        failed += check.level == "FAIL"
    return 1 if failed else 0


def _prefetch(args: argparse.Namespace) -> int:
    from btrm.environment import load_environment
    from btrm.launch.site import default_site, load_site
    from btrm.operate.prefetch import prefetch

    load_environment(os.environ, Path(".env"))
    for line in prefetch(args.experiment, load_site(args.site or default_site()), args.run):
        print(line, flush=True)
    return 0


def _rewards(args: argparse.Namespace) -> int:
    from btrm.rewards.cli import main as rewards

    return rewards(args)


if __name__ == "__main__":
    sys.exit(main())
