"""`btrm container`: build the image that pins everything, look into it, vouch for it, keep it in a registry."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from btrm.config import ConfigError
from btrm.container import cli_build, cli_image
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


COMMANDS = (
    Command("build", "build an image from its lock and a folder of wheels", cli_build.build_arguments, cli_build.build),
    Command(
        "base",
        "build what an image stands on, with its system packages, for a build without a network",
        cli_build.base_arguments,
        cli_build.base,
    ),
    Command(
        "wheels",
        "fetch all files of a lock, by hash, for a build without a network",
        cli_build.wheels_arguments,
        cli_build.wheels,
    ),
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
    Command(
        "squash",
        "an image's file system by itself, as enroot and pyxis take it",
        cli_build.squash_arguments,
        cli_build.squash,
    ),
    Command(
        "lock",
        "resolve locks/NAME.in into locks/NAME.lock, every file by its hash",
        cli_build.lock_arguments,
        cli_build.lock,
    ),
    Command(
        "dockerfile",
        "the image for docker, podman and devcontainers, from the same parts",
        cli_build.dockerfile_arguments,
        cli_build.dockerfile,
    ),
)
