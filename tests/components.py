"""What a test needs of the machine: missing here is a skip, and a failure where BTRM_REQUIRE names it."""

from __future__ import annotations

import os

import pytest

REQUIRED = {name for name in os.environ.get("BTRM_REQUIRE", "").split(",") if name}


def missing(component: str, what: str) -> None:
    """Skip the test, or fail it where the component must be there."""
    if component in REQUIRED:
        pytest.fail(f"BTRM_REQUIRE names {component}, but {what}")
    pytest.skip(what)
