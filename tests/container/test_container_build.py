"""Builds of the real image: what is refused, what is taken from an earlier build, what the image says of itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from image_fixtures import build_cpu, cpu_base

from btrm.config import ConfigError
from btrm.container import build as building
from btrm.container import record as recording
from btrm.container.bases import named_base
from btrm.container.build import Build, build, packages_key, stage_one
from btrm.container.run_build import record_path, remove
from btrm.container.variants import Image, Lock, get_image
from btrm.container.wheels import entries
from btrm.launch.snapshot import code_digest
from btrm.runs import StageError, sha256_file
from btrm.train.swift_series import SERIES

ROOT = Path(__file__).parent.parent.parent
BASE = named_base(f"docker.io/x@sha256:{0:064}")


def test_the_packages_are_named_by_all_that_goes_into_them(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cu13 = get_image("cpu"), get_image("cu13")
    key = packages_key(cpu, BASE)
    assert packages_key(cpu, BASE) == key
    others = [packages_key(cu13, BASE), packages_key(cpu, replace(BASE, digest="sha256:1"))]
    monkeypatch.setattr(building, "SERIES", "other patches")
    others.append(packages_key(cpu, BASE))
    assert len({key, *others}) == 4


def test_the_first_stage_is_a_definition_of_its_own() -> None:
    first = stage_one()
    assert first.count("Bootstrap:") == 1
    assert "{{ code }}" not in first and "{{ revision }}" not in first, "btrm's own changes do not reach the packages"


def test_a_base_needs_a_digest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="by digest"):
        Image.build({"name": "x", "lock": "cpu", "bootstrap": "docker", "base": "ubuntu:24.04"}, "x")
    base = tmp_path / "base.sif"
    base.write_bytes(b"not what was meant")
    with pytest.raises(ConfigError, match=f"its sha256 is {sha256_file(base)}"):
        named_base(f"{base}@sha256:{'0' * 64}")
    with pytest.raises(ConfigError, match="neither a file nor"):
        named_base("ubuntu:24.04")
    assert named_base(str(base)).digest == f"sha256:{sha256_file(base)}"


def test_a_prepared_base_names_the_one_that_it_was_made_from(tmp_path: Path) -> None:
    base = tmp_path / "base.sif"
    base.write_bytes(b"a base")
    record_path(base).write_text(json.dumps({"sha256": sha256_file(base), "base": "sha256:origin"}))
    assert named_base(str(base)).origin == "sha256:origin"
    base.write_bytes(b"another")
    assert named_base(str(base)).origin == named_base(str(base)).digest == f"sha256:{sha256_file(base)}"


def test_an_image_is_not_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "x.sif").touch()
    command = [sys.executable, "-m", "btrm.cli", "container", "build", "--variant", "cpu", str(tmp_path / "x.sif")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--force" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_image_says_what_it_is_and_passes_its_own_test(cpu_image: Path) -> None:
    record = json.loads(record_path(cpu_image).read_text())
    assert record["sha256"] == sha256_file(cpu_image)
    assert record["code"] == code_digest()
    inspect = ["apptainer", "inspect", "--json", str(cpu_image)]
    told = json.loads(subprocess.run(inspect, capture_output=True, text=True, check=True).stdout)
    labels = told["data"]["attributes"]["labels"]
    assert labels["org.btrm.lock.sha256"] == sha256_file(get_image("cpu").packages.path)
    assert labels["org.btrm.patches.sha256"] == SERIES
    assert labels["org.btrm.code"] == code_digest()
    assert labels["org.btrm.base"] == record["base"]
    for words in (["inspect", "--deffile", str(cpu_image)], ["inspect", "--runscript", str(cpu_image)]):
        shown = subprocess.run(["apptainer", *words], capture_output=True, text=True, check=True).stdout
        assert not re.search(rf"btrm-build-|{cpu_image.parent}|{ROOT}|/home/|/root/|proxy", shown), (
            "a path of the machine that built it"
        )
    done = subprocess.run(["apptainer", "test", str(cpu_image)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "packages as locked, patched ms-swift" in done.stdout


@pytest.mark.slow
def test_the_patched_sampler_is_one_import_away(cpu_image: Path) -> None:
    code = "from swift.rlhf_trainers.pair_sampler import PairRepeatSampler"
    subprocess.run(["apptainer", "exec", str(cpu_image), "python", "-c", code], check=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_where_only_btrm_changed_no_package_is_installed(cpu_image: Path, image_cache: Path) -> None:
    base = cpu_base(image_cache)
    packages = image_cache / f"packages-{packages_key(get_image('cpu'), named_base(str(base)))}.sif"
    before, image = packages.stat().st_mtime_ns, image_cache / "btrm-again"
    said = build_cpu(image, image_cache, base, "--sandbox")
    try:
        assert "the packages are as they were" in said
        assert packages.stat().st_mtime_ns == before
        subprocess.run(["apptainer", "exec", str(image), "btrm", "--help"], check=True, capture_output=True)
        assert json.loads(record_path(image).read_text())["sha256"] is None, "a folder has no digest"
        built = json.loads(record_path(cpu_image).read_text())
        assert json.loads((image / "opt/btrm/image.json").read_text())["lock_sha256"] == built["lock_sha256"]
    finally:
        remove(image)
        record_path(image).unlink(missing_ok=True)


@pytest.mark.slow
@pytest.mark.usefixtures("need_apptainer")
def test_a_lock_that_no_file_fits_builds_nothing(
    image_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu, lock = get_image("cpu"), tmp_path / "cpu.lock"
    _, first = next(entries(cpu.packages.path))
    lock.write_text(re.sub("sha256:[0-9a-f]{8}", "sha256:00000000", first))
    monkeypatch.setattr(Lock, "path", property(lambda _: lock))
    with pytest.raises(StageError, match=r"(?s)pip download.*(HASH|hash)"):
        build(Build(cpu, tmp_path / "x.sif", wheels=tmp_path / "wheels", cache=image_cache))
    assert not (tmp_path / "x.sif").exists()


@pytest.mark.slow
def test_a_lock_that_changes_under_the_build_is_refused(
    cpu_image: Path, image_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cpu_image.exists()
    base = cpu_base(image_cache)
    monkeypatch.setattr(recording, "sha256_file", lambda _: "0" * 64)
    places = {"base": str(base), "wheels": image_cache / "wheels", "cache": tmp_path / "cache"}
    with pytest.raises(StageError, match=r"packages\.lock: FAILED"):
        build(Build(get_image("cpu"), tmp_path / "x.sif", **places))
    assert not (tmp_path / "x.sif").exists()
    assert not list((tmp_path / "cache").glob("packages-*.sif"))
