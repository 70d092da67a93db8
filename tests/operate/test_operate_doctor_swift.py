"""What the doctor says of ms-swift: which release, plain or patched, and by which series."""

from __future__ import annotations

from dataclasses import replace

import pytest

from btrm.operate.doctor_check import adapted_swift, python_checks
from btrm.operate.doctor_node import Facts, Question, take
from btrm.train.swift_series import SERIES, own_version

RELEASE = "4.6.0"


@pytest.fixture(scope="module")
def here() -> Facts:
    return take(Question("here"))


@pytest.mark.parametrize(
    ("version", "level", "said"),
    [
        (RELEASE, "OK", "ms-swift 4.6.0, plain, with btrm's pair sampler put in by its adapter"),
        (own_version(RELEASE), "OK", f"ms-swift 4.6.0, patched (series {SERIES[:8]})"),
        (f"{RELEASE}+btrm.00000000", "WARN", f"(series 00000000), not with this btrm's {SERIES[:8]}"),
        ("4.5.3", "FAIL", "ms-swift 4.5.3; btrm's adapter is made for 4.6.0"),
        (None, "WARN", "no ms-swift"),
    ],
)
def test_which_ms_swift_is_active_is_said(here: Facts, version: str | None, level: str, said: str) -> None:
    assert adapted_swift() == RELEASE
    packages = {name: found for name, found in here.packages.items() if name != "ms-swift"}
    facts = replace(here, packages=packages if version is None else {**packages, "ms-swift": version})
    *_, check = python_checks(facts)
    assert check.level == level and said in check.what
    assert bool(check.fix) == (level != "OK")
