"""The `btrm` command. Its help answers at once: everything is imported inside the command that needs it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
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


# Commands with a parser of their own, which `main` hands the rest of the words to.
_OTHERS = {
    "submit": "run a stage or a whole experiment (same as python -m btrm.submit)",
    "cluster": "a real Slurm on this machine, with faults on request",
    "container": "the image that pins everything: build, try, verify, keep it",
    "data": "what files of preferences hold, and their pairs for another trainer",
}


def _parser() -> argparse.ArgumentParser:
    from btrm.operate.cli import add_commands
    from btrm.operate.sites_cli import add_commands as add_site_commands

    parser = argparse.ArgumentParser(prog="btrm", description="From preference data to an evaluated judge.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, text in _OTHERS.items():
        commands.add_parser(name, help=text)

    def add(name: str, function: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(function=function)
        return command

    for name, function, text in (
        ("show", _show, "what a run holds, and how far it is"),
        ("best", _best, "which checkpoint of a run is the best, and how sure that is"),
        ("verify", _verify, "rehash everything that a run's manifests claim"),
    ):
        add(name, function, text).add_argument("run", type=Path)
    _summarize_flags(add("summarize", _summarize, "one table of all evaluated runs below some folders"))
    _prompts_flags(add("prompts", _prompts, "list the judge's and the teacher's prompts, or show one"))
    experiments = add("experiments", _experiments, "list the experiments, or show one's plan")
    experiments.add_argument("action", nargs="?", choices=("list", "show"), default="list")
    experiments.add_argument("name", nargs="?")
    add_site_commands(add)
    _rewards_flags(add("rewards", _rewards, "score batches of completions with a published reward"))
    add_commands(add)
    return parser


def _summarize_flags(runs: argparse.ArgumentParser) -> None:
    runs.add_argument("dirs", nargs="+", type=Path, metavar="DIR", help="runs, or folders with runs below")
    runs.add_argument("--columns", default="", metavar="A,B", help="what to show, in this order (default: the usual)")
    runs.add_argument("--sort", metavar="COLUMN", help="order by a column, -COLUMN from the top")
    runs.add_argument("--baseline", metavar="RUN", help="compare with this run, or RUN:CHECKPOINT, pair by pair")
    runs.add_argument("--select-on", "--select_on", metavar="NAME", help="data set that a run's best is selected on")
    runs.add_argument("--out", type=Path, metavar="DIR", help="write summary.csv, summary.md and summary_long.csv")


def _prompts_flags(prompts: argparse.ArgumentParser) -> None:
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


def _rewards_flags(rewards: argparse.ArgumentParser) -> None:
    rewards.add_argument(
        "--batches",
        required=True,
        metavar="F.jsonl",
        help="a line: reward, parser, params, completions, pair_id, side, preferred_side; - is stdin",
    )


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


def _rewards(args: argparse.Namespace) -> int:
    from btrm.rewards.cli import main as rewards

    return rewards(args)


if __name__ == "__main__":
    sys.exit(main())
