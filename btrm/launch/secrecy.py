"""What is a secret, told by its name or by its value: it goes into no file of a job, and to no command of Slurm."""

from __future__ import annotations

import re
from collections.abc import Sequence

from btrm.config import ConfigError

# A word of a name stands between underscores or digits: MONKEY and KEYBOARD are none. PWD alone is where one is.
_NAME = re.compile(
    r"(?:^|[_\d])(?:API)?(?:KEY|TOKEN|SECRET|PASS|CRED(?:ENTIAL)?S?|PAT)(?=[_\d]|$)"
    r"|PASS(?:WORD|WD)(?=[_\d]|$)"
    r"|(?<=[_\d])PWD(?=[_\d]|$)",
    re.IGNORECASE,
)
_ABOUT_ONE = re.compile(r"_(PATH|FILE|DIR|LIMIT)$", re.IGNORECASE)  # where it lies, or how long it is
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@", re.IGNORECASE)


_FLAG = re.compile(r"--[\w.-]+|[\w.-]+(?==)")  # --flag, or the field of a field=value


def refuse_keys(words: Sequence[str]) -> None:
    """Raise ConfigError for keys among a command's words, as --api-key VALUE or --set api_key=VALUE; none is repeated.

    Where a key lies (--api-key-file) may be said.
    """
    inner = [word.partition("=")[2] for word in words if word.startswith("--")]  # --set=field=value
    found = (_FLAG.match(word) for word in (*words, *inner))
    given = sorted({name[0] for name in found if name and _is_key(name[0])})
    if given:
        raise ConfigError(
            f"{', '.join(given)}: a key in a command shows in ps to everyone on this machine, and stays in the "
            "shell's history (if it was a real one, replace it). Set ANTHROPIC_API_KEY, GEMINI_API_KEY, OPENAI_API_KEY "
            "in the environment or in .env (mode 0600), or give --api-key-file FILE (mode 0600)"
        )


def _is_key(name: str) -> bool:
    return is_secret(re.sub(r"\W", "_", name.lstrip("-").rpartition(".")[2]))


def is_secret(name: str, value: str = "") -> bool:
    """Say whether a variable holds a secret: by its name, or as scheme://user:password@host."""
    named = _NAME.search(name) is not None and not _ABOUT_ONE.search(name)
    return named or _URL.search(value) is not None
