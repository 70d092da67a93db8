"""What is a secret, told by its name or by its value: it goes into no file of a job, and to no command of Slurm."""

from __future__ import annotations

import re

# A word of a name stands between underscores or digits: MONKEY and KEYBOARD are none. PWD alone is where one is.
_NAME = re.compile(
    r"(?:^|[_\d])(?:API)?(?:KEY|TOKEN|SECRET|PASS|CRED(?:ENTIAL)?S?|PAT)(?=[_\d]|$)"
    r"|PASS(?:WORD|WD)(?=[_\d]|$)"
    r"|(?<=[_\d])PWD(?=[_\d]|$)",
    re.IGNORECASE,
)
_ABOUT_ONE = re.compile(r"_(PATH|FILE|DIR|LIMIT)$", re.IGNORECASE)  # where it lies, or how long it is
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@", re.IGNORECASE)


def is_secret(name: str, value: str = "") -> bool:
    """Say whether a variable holds a secret: by its name, or as scheme://user:password@host."""
    named = _NAME.search(name) is not None and not _ABOUT_ONE.search(name)
    return named or _URL.search(value) is not None
