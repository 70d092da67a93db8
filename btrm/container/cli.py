"""`btrm container`: build the image that pins everything, look into it, vouch for it, keep it in a registry."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from btrm.config import ConfigError
from btrm.container import cli_image
from btrm.runs import StageError


@dataclass(frozen=True, slots=True)
class Command:
    """A row of the table: what `btrm container NAME` takes and does."""

    name: str
    summary: str
    arguments: Callable[[argparse.ArgumentParser], object]
    run: Callable[[argparse.Namespace], int]


def main(argv: Sequence[str]) -> int:
    """Run a command; return its exit status (1: it failed, 2: the request was wrong)."""
    args = _parser().parse_args(list(argv) or ["--help"])
    try:
        return args.function(args)
    except (ConfigError, StageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="btrm container", description=__doc__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        added = commands.add_parser(command.name, help=command.summary, description=command.summary)
        command.arguments(added)
        added.set_defaults(function=command.run)
    return parser


def _lock_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="*", help="which locks (default: all)")
    parser.add_argument("--upgrade", action="store_true", help="take newer versions than the lock has")
    parser.add_argument("--find-links", action="append", default=[], metavar="DIR|URL", help="for uv; may be repeated")


def _lock(args: argparse.Namespace) -> int:
    from btrm.container.lock import write_lock
    from btrm.container.variants import get_lock, variants

    words = [word for place in args.find_links for word in ("--find-links", place)]
    for lock in [get_lock(name) for name in args.name or variants().locks]:
        print(write_lock(lock, upgrade=args.upgrade, words=words), flush=True)
    return 0


COMMANDS = (
    Command("shell", "a shell in an image, as jobs see it", cli_image.shell_arguments, cli_image.shell),
    Command(
        "exec",
        "a command in an image, as jobs see it; prints the line, to be copied",
        cli_image.exec_arguments,
        cli_image.execute,
    ),
    Command(
        "verify",
        "is it what was built, from what is locked? a line a check",
        cli_image.verify_arguments,
        cli_image.verify,
    ),
    Command("sign", "sign an image with a key of yours", cli_image.sign_arguments, cli_image.sign),
    Command("push", "send an image to a registry, by ORAS", cli_image.push_arguments, cli_image.push),
    Command(
        "pull",
        "bring an image from a registry, and hold it against its digest",
        cli_image.pull_arguments,
        cli_image.pull,
    ),
    Command("lock", "resolve locks/NAME.in into locks/NAME.lock, every file by its hash", _lock_arguments, _lock),
)
