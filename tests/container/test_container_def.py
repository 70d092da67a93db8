"""The definitions' sections and scripts, by shellcheck; and what must never stand in them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from btrm.container.bases import base_definition
from btrm.container.variants import get_image
from btrm.plugins import shipped

CONTAINERS = shipped("containers")
_SHELL = ("post", "environment", "test", "runscript", "startscript")


def sections(text: str) -> dict[str, str]:
    """Return {`section line`: body} of a definition's shell sections, its {{ }} filled in."""
    found: dict[str, str] = {}
    for number, part in enumerate(re.split(r"^%", text, flags=re.MULTILINE)[1:]):
        name, _, body = re.split(r"^[A-Z]\w+: ", part, flags=re.MULTILINE)[0].partition("\n")
        if name.split()[0] in _SHELL:
            found[f"{name} {number}"] = re.sub(r"\{\{ (\w+) \}\}", r"\1", body)
    return found


DEFINITIONS = {
    "btrm.def": (CONTAINERS / "btrm.def").read_text(),
    "base.def": base_definition(get_image("cpu")),
    "base.def of cu13": base_definition(get_image("cu13")),
}
BODIES = {f"{file} {name}": body for file, text in DEFINITIONS.items() for name, body in sections(text).items()}
SCRIPTS = {path.name: path.read_text() for path in CONTAINERS.glob("*.sh")}


def shellcheck() -> str:
    """Return the command; it comes with the development set."""
    found = shutil.which("shellcheck", path=str(Path(sys.executable).parent)) or shutil.which("shellcheck")
    assert found is not None, "shellcheck: make venv installs it"
    return found


def test_all_sections_are_found() -> None:
    assert [name.split()[1] for name in BODIES if name.startswith("btrm.def")] == [
        *("post", "post", "environment", "test", "runscript")
    ]
    assert set(SCRIPTS) == {"packages.sh", "system.sh"}


@pytest.mark.parametrize("name", [*BODIES, *SCRIPTS])
def test_every_section_passes_shellcheck(name: str) -> None:
    text = SCRIPTS.get(name) or f"#!/bin/sh\n{BODIES[name]}"
    done = subprocess.run([shellcheck(), "-"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", DEFINITIONS)
def test_every_name_in_braces_is_an_argument_of_its_stage(name: str) -> None:
    """Apptainer fills in the header too, and fails on what it is not told."""
    from btrm.container.bases import named_base
    from btrm.container.build import Build, _arguments

    record = dict.fromkeys(("lock_sha256", "version", "git", "code", "patches_sha256", "driver"), "x")
    told = _arguments(Build(get_image("cpu"), Path("x")), named_base(f"x@sha256:{0:064}"), "key", record, Path("c"))
    wanted = set(re.findall(r"\{\{ (\w+) \}\}", DEFINITIONS[name]))
    assert wanted <= {*told, "mirror"}, f"{name}: {wanted - set(told)}"
    if name == "btrm.def":
        assert set(told) <= wanted, "apptainer refuses an argument that it does not use"


def test_no_definition_names_a_proxy_a_secret_or_this_machine() -> None:
    texts = {**DEFINITIONS, **SCRIPTS}
    for name, text in texts.items():
        assert not re.search(r"proxy|token|password|api_key|localhost|127\.0\.0\.1|/home/|/work/", text, re.I), name
