"""The commands that operate runs: their flags and what they print. Everything is imported inside the command."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
_WATCH_S = 5.0
_REST = 20  # a look that takes long is repeated less often
_CLEAR = "\x1b[H\x1b[2J"


def add_commands(add: Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]) -> None:
    """Add the commands; `add(name, function, help)` makes one."""
    status = add("status", _status, "how far runs are: steps, elements, progress, what went wrong and what follows")
    status.add_argument("run", nargs="*", help="a folder or an experiment's name (default: every run below runs/)")
    status.add_argument("--watch", action="store_true", help="show it again and again until nothing more will happen")
    status.add_argument("--json", action="store_true", help="one JSON object a run, a line each")
    logs = add("logs", _logs, "the log of what runs or failed, of one step or one cell")
    logs.add_argument("run")
    logs.add_argument("step", nargs="?", help="a step, or STEP.commit (default: what runs, else what failed)")
    logs.add_argument("--cell", metavar="K", help="an array's element by number, or a judge's cell by name")
    logs.add_argument("--node", type=int, default=0, metavar="N", help="of a job over several nodes: which, from 0")
    logs.add_argument("-f", "--follow", action="store_true", help="go on with what is added, through later attempts")
    cancel = add("cancel", _cancel, "end a run's jobs and send nothing more; btrm retry goes on from there")
    cancel.add_argument("run")
    cancel.add_argument("steps", nargs="*", metavar="step", help="only these steps' jobs (default: all)")
    retry = add("retry", _retry, "send again what is neither complete nor under way")
    retry.add_argument("run")
    retry.add_argument("--failed", action="store_true", help="only steps whose elements failed or were lost")
    ledger = add("ledger", _ledger, "hours by stage, useful and wasted by cause; and what APIs were paid")
    ledger.add_argument("run", nargs="*", help="folders or experiments' names (default: every run below runs/)")
    ledger.add_argument("--csv", action="store_true", help="a line a run, step and cause")
    compare = add("agreement", _agreement, "how far two teachers or judges agree, and which is right more often")
    compare.add_argument("a", type=Path, help="a stage's directory (RUN/teacher), or a judgements.parquet")
    compare.add_argument("b", type=Path, help="another, of the same pairs")
    compare.add_argument("--pairs", type=Path, metavar="FILE", help="only the pairs of this pairs.parquet")
    compare.add_argument("--most", type=int, default=10, metavar="K", help="name the K pairs that differ most")
    compare.add_argument("--json", action="store_true", help="one JSON object")
    redo = add("redo", _redo, "forget a teacher's answers with these outcomes, so that a rerun asks again")
    redo.add_argument("stage", type=Path, help="the teacher's directory, RUN/teacher")
    redo.add_argument("--outcomes", required=True, metavar="A,B,…", help="as error,truncated,malformed")
    _add_shell(add("shell", _shell, "an interactive shell on a node, in the site's image where it has one"))
    gc = add("gc", _gc, "remove what no manifest needs; nothing while jobs live")
    gc.add_argument("run")
    gc.add_argument("--dry-run", action="store_true", help="say what would go, remove nothing")
    gc.add_argument("--days", type=float, default=7.0, metavar="N", help="keep the logs of the last N days (default 7)")
    gc.add_argument("--checkpoints", action="store_true", help="optimizer states of all checkpoints but the last, too")


def _add_shell(shell: argparse.ArgumentParser) -> None:
    shell.add_argument("--site", metavar="NAME", help="a site profile (default: as for submit)")
    for flag, default, what in (
        ("--nodes", 1, "nodes"),
        ("--gpus", 0, "GPUs a node"),
        ("--cpus", 4, "CPUs a node"),
        ("--mem-gb", 16, "memory a node"),
        ("--time", 60, "minutes"),
    ):
        shell.add_argument(flag, type=int, default=default, metavar="N", help=f"{what} (default {default})")
    shell.add_argument("--print", action="store_true", dest="only_print", help="print the command, run nothing")


def _status(args: argparse.Namespace) -> int:
    from btrm.operate.status import run_status
    from btrm.operate.table import render
    from btrm.operate.where import find_runs

    runs = find_runs(args.run)
    if args.json:
        return _json(runs)
    try:
        while True:
            began = time.monotonic()
            found = [run_status(root) for root in runs]
            text = "\n\n".join(map(render, found))
            print(f"{_CLEAR}{text}" if args.watch else text, flush=True)
            if not args.watch or all(status.finished for status in found):
                return 0
            time.sleep(max(_WATCH_S, _REST * (time.monotonic() - began)))
    except KeyboardInterrupt:
        return 0


def _json(runs: list[Path]) -> int:
    import json
    from dataclasses import asdict

    from btrm.operate.status import run_status

    for root in runs:
        print(json.dumps(asdict(run_status(root)), ensure_ascii=False))
    return 0


def _logs(args: argparse.Namespace) -> int:
    from btrm.operate.logs import Question, find_log, follow, read
    from btrm.operate.where import find_run

    question = Question(find_run(args.run), args.step, args.cell, args.node)
    log = find_log(question)
    also = f"; also {', '.join(map(str, log.others))}" if log.others else ""
    print(f"==> {log.path} ({log.what}){also}", file=sys.stderr)
    try:
        for block in follow(question, log) if args.follow else read(log):
            print(block, end="", flush=True)
    except KeyboardInterrupt:
        return 0
    return 0


def _cancel(args: argparse.Namespace) -> int:
    from btrm.operate.cancel import cancel
    from btrm.operate.where import find_run

    root = find_run(args.run)
    _take_umask(root)
    done = _or_stage_error(lambda: cancel(root, args.steps))
    if done is None:
        return 1
    for job, name in done.jobs.items():
        print(f"cancelled {job} {name}")
    if not done.jobs:
        print(f"{root}: the queue holds no job of it")
    if done.marked:
        print(f"nothing more will be sent; to go on: btrm retry {root}")
    return 0


def _retry(args: argparse.Namespace) -> int:
    from btrm.operate.retry import retry, retry_failed
    from btrm.operate.where import find_run

    root = find_run(args.run)
    _take_umask(root)
    sent = _or_stage_error(lambda: (retry_failed if args.failed else retry)(root))
    if sent is None:
        return 1
    for job in sent:
        print(f"sent {job.job_id} {job.key}" + (f" ({job.count} elements)" if job.kind == "array" else ""))
    if not sent:
        print(f"{root}: nothing to send; see: btrm status {root}")
    return 0


def _ledger(args: argparse.Namespace) -> int:
    from btrm.operate.ledger import ledger, render, to_csv
    from btrm.operate.money import paid, render_money
    from btrm.operate.where import find_runs

    runs = find_runs(args.run)
    entries, money = ledger(runs), paid(runs)
    if args.csv:
        print(to_csv(entries, money), end="")
        return 0
    print("\n\n".join([render(entries), *([render_money(money)] if money else [])]))
    return 0


def _agreement(args: argparse.Namespace) -> int:
    from btrm.operate.agreement import compare, render, to_json

    found = compare(args.a, args.b, args.pairs, args.most)
    print(to_json(found) if args.json else render(found))
    return 0


def _redo(args: argparse.Namespace) -> int:
    from btrm.operate.redo import go_on
    from btrm.teacher.redo import redo

    outcomes = [name.strip() for name in args.outcomes.split(",") if name.strip()]
    forgotten = redo(args.stage, outcomes)
    print(f"{args.stage}: {forgotten} answers are forgotten")
    if forgotten:
        print(f"to ask for them again: {go_on(args.stage)}")
        if "truncated" in outcomes:
            print("with a larger --max-tokens, what was cut off has more room")
    return 0


def _shell(args: argparse.Namespace) -> int:
    import shlex

    from btrm.launch.site import default_site, load_site
    from btrm.operate.shell import open_shell, shell_command
    from btrm.runs import Resources

    asked = Resources(nodes=args.nodes, gpus=args.gpus, cpus=args.cpus, mem_gb=args.mem_gb, time_min=args.time)
    command = shell_command(load_site(args.site or default_site()), asked)
    print(shlex.join(command), flush=True)
    if not args.only_print:
        open_shell(command)
    return 0


def _gc(args: argparse.Namespace) -> int:
    from btrm.operate.gc import Wanted, collect, remove
    from btrm.operate.where import find_run

    root = find_run(args.run)
    found = collect(root, Wanted(args.days, args.checkpoints))
    for item in found:
        print(f"{'would remove' if args.dry_run else 'removed'} {item.path.relative_to(root)}  {item.why}")
    size = sum(item.bytes for item in found) / 1e6
    print(f"{len(found)} things, {size:.1f} MB")
    if not args.dry_run:
        remove(found)
    return 0


def _take_umask(root: Path) -> None:
    """Write as the run's last submission does: its site may have a group share the files."""
    from btrm.launch.site import apply_umask
    from btrm.launch.submission import submissions

    for submission in submissions(root)[-1:]:
        mask = submission.plan().site.get("umask")
        apply_umask(str(mask) if mask else None)


def _or_stage_error(function: Callable[[], T]) -> T | None:
    """Return what a function returns, or print the StageError that it raises and return None."""
    from btrm.runs import StageError

    try:
        return function()
    except StageError as error:
        print(f"error: {error}", file=sys.stderr)
        return None
