"""The key that an API is asked with: from the environment or a private file, and never in a message."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from btrm.config import ConfigError
from btrm.teacher.config import APIS, TeacherConfig

VARIABLES = {
    "anthropic": ("ANTHROPIC_API_KEY",),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "openai": ("OPENAI_API_KEY",),
}
_NO_KEY = "none"  # the SDKs demand one; a server that wants none reads none
_LONGEST_FILE = 4096


@dataclass(frozen=True, slots=True)
class Key:
    """A key that prints as `***`."""

    value: str = field(repr=False)

    def __str__(self) -> str:
        return "***"

    def redact(self, text: str) -> str:
        """Return a text without the key."""
        return text.replace(self.value, "***") if self.value != _NO_KEY else text


def read_key(config: TeacherConfig) -> Key:
    """Return the key of a config's API. Raises ConfigError where there is none, or its file is not private."""
    if config.api_key_file is not None:
        return Key(_from_file(Path(config.api_key_file).expanduser()))
    names = VARIABLES[config.backend]
    for name in names:
        if value := os.environ.get(name, "").strip():
            return Key(_checked(value, name))
    if not needs_key(config):
        return Key(_NO_KEY)
    raise ConfigError(
        f"backend {config.backend} needs a key: set {' or '.join(names)} in the environment or in .env, "
        "or give api_key_file, a file of mode 0600"
    )


def account(config: TeacherConfig, salt: str) -> str:
    """Return a digest of where, and with which key, an API is asked; nothing of either can be told from it."""
    told = f"{salt}\n{(config.base_url or '').rstrip('/')}\n{read_key(config).value}"
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def needs_key(config: TeacherConfig) -> bool:
    """Say whether an API wants a key; a server of one's own that speaks OpenAI's protocol may want none."""
    return config.backend in APIS and not (config.backend == "openai" and on_own_network(config))


def on_own_network(config: TeacherConfig) -> bool:
    """Say whether an API is asked at a server of one's own."""
    return config.base_url is not None and _own(config.base_url)


def key_problem(config: TeacherConfig) -> str | None:
    """Return what is wrong with a config's key, None where it can be tried. Asks nobody over the network."""
    if config.backend not in APIS:
        return None
    try:
        read_key(config)
    except ConfigError as error:
        return str(error)
    return None


def _own(base_url: str) -> bool:
    """Say whether a server is one's own: another than OpenAI's, by plain http or on a private address."""
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    try:
        private = ip_address(host).is_private
    except ValueError:
        private = host == "localhost" or "." not in host
    return private or parts.scheme == "http"


def _from_file(path: Path) -> str:
    try:
        # Without O_NONBLOCK, opening a pipe waits for somebody who writes.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            _check_private(path, os.fstat(file.fileno()))
            data = file.read(_LONGEST_FILE + 1)
    except OSError as error:
        raise ConfigError(f"api_key_file {path}: {error.strerror}") from None
    if len(data) > _LONGEST_FILE:
        raise ConfigError(f"api_key_file {path}: longer than {_LONGEST_FILE} bytes, which no key is")
    lines = [line for line in data.decode("latin-1").split("\n") if line.strip()]
    if not lines:
        raise ConfigError(f"api_key_file {path} is empty; put the key into it, alone on its line")
    if len(lines) > 1:
        raise ConfigError(f"api_key_file {path} has {len(lines)} lines; put the key into it, alone on its line")
    return _checked(lines[0].strip(), f"api_key_file {path}")


def _check_private(path: Path, info: os.stat_result) -> None:
    if not stat.S_ISREG(info.st_mode):
        raise ConfigError(f"api_key_file {path} is not a plain file")
    if info.st_uid != os.getuid():
        raise ConfigError(f"api_key_file {path} belongs to user {info.st_uid}, not to you ({os.getuid()})")
    if mode := stat.S_IMODE(info.st_mode) & 0o077:
        raise ConfigError(
            f"api_key_file {path} has mode {stat.S_IMODE(info.st_mode):04o}: others may read or write it "
            f"({mode:04o}); chmod 600 {path}"
        )


def _checked(value: str, where: str) -> str:
    """Return a key that can stand in a header; what it says is not repeated."""
    if not value.isascii() or not value.isprintable() or any(letter.isspace() for letter in value):
        raise ConfigError(f"{where}: a key is printable ASCII without blanks; this has other characters")
    if re.match(r"[A-Z_]+_KEY=", value):
        raise ConfigError(f"{where}: holds NAME=VALUE; put the value alone into it")
    return value
