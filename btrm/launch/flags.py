"""Command-line flags, generated from the config classes: what a stage takes stands in one place."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from typing import Any, NoReturn, get_args

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from btrm.config import Config, ConfigError, flat_fields, published_name, role

_TITLES = {
    "source": "inputs (@STAGE/path is an output of this run)",
    "setting": "settings (another value is another run)",
    "extent": "extent (raising it extends a finished run)",
    "members": "extent (raising it extends a finished run)",
    "runtime": "speed and memory (no result changes)",
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ConfigErrors, so that one place prints them all the same way."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would have printed."""
        raise ConfigError(f"{message}\nsee: {self.prog} --help")


def normalise(argv: Sequence[str]) -> list[str]:
    """Take underscore spellings of flags (--n_pairs=5) for the hyphen ones; values stay as they are."""
    words: list[str] = []
    for word in argv:
        flag, equals, value = word.partition("=")
        words.append(flag.replace("_", "-") + equals + value if flag.startswith("--") else word)
    return words


def add_config_flags(
    parser: argparse.ArgumentParser,
    config: type[Config],
    only: Collection[str] | None = None,
    groups: dict[str, Any] | None = None,
) -> None:
    """Add a flag for every field, or for `only` some, by what a changed value means; nested fields as --reward.name.

    `groups`: argument groups by title, where several configs share them.
    """
    groups = {} if groups is None else groups
    for path, info in flat_fields(config).items():
        if only is not None and path not in only:
            continue
        title = _TITLES[role(info)]
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        kinds = str(info.annotation)
        options: dict[str, Any] = {"metavar": _metavar(info), "help": _help(info), "default": argparse.SUPPRESS}
        if info.annotation is bool:
            options |= {"nargs": "?", "const": "true"}
        if "dict[" in kinds:
            options |= {"action": "append"}
        groups[title].add_argument(f"--{path.replace('_', '-')}", dest=f"field:{path}", **options)


def assignments(namespace: argparse.Namespace) -> list[str]:
    """Return the given config flags as field=value assignments, in no order that matters (each names its own field)."""
    given: list[str] = []
    for key, value in vars(namespace).items():
        if key.startswith("field:"):
            path = key.removeprefix("field:")
            given.append(f"{path}={','.join(value) if isinstance(value, list) else value}")
    return given


def _metavar(info: FieldInfo) -> str:
    choices = get_args(info.annotation)
    if choices and all(isinstance(choice, str) for choice in choices):
        return "|".join(choices)
    if info.annotation is bool:
        return "true|false"
    kinds = str(info.annotation)
    names = {"dict[": "KEY=VALUE,…", "tuple[": "A,B,…", "float": "X", "int": "N"}
    return next((name for mark, name in names.items() if mark in kinds), "TEXT")


def _help(info: FieldInfo) -> str:
    parts = [info.description or ""]
    if info.default is not PydanticUndefined and info.default is not None:
        default = info.default
        parts.append(f"(default: {','.join(map(str, default)) if isinstance(default, tuple) else default})")
    if alias := published_name(info):
        parts.append(f"[{alias}]")
    return " ".join(parts).replace("%", "%%")
