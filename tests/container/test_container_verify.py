from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import tiny
from container_fixtures import fingerprint

from btrm.config import ConfigError
from btrm.container.cli import main
from btrm.container.image_facts import build_record
from btrm.container.run_build import record_path
from btrm.container.signing import sign
from btrm.container.variants import get_image
from btrm.container.verify import Demand, checks
from btrm.images import image_digest
from btrm.publishing import write_json
from btrm.runs import sha256_file

pytestmark = pytest.mark.slow


def said(image: Path, *, by: dict[str, str] | None = None, **demand: object) -> dict[str, list[str]]:
    """{level: what is said at it}"""
    found: dict[str, list[str]] = {"OK": [], "WARN": [], "FAIL": []}
    for check in checks(image, Demand(by or {}, **demand)):
        found[check.level].append(check.what)
    return found


@pytest.fixture
def image(tiny_image: Path, tmp_path: Path) -> Path:
    return tiny.copy(tiny_image, tmp_path)


@pytest.fixture
def as_us(keyrings: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("APPTAINER_KEYSDIR", str(keyrings["ours"]))
    return fingerprint(keyrings["ours"])


def signed_by(keyring: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("APPTAINER_KEYSDIR", str(keyring))
        sign(image)


def test_what_was_built_passes_and_lacks_only_a_signature(image: Path) -> None:
    found = said(image, by={"site here": sha256_file(image).upper()}, lock=True)
    assert not found["FAIL"]
    assert [line for line in found["WARN"] if "not signed" not in line] == []
    text = "\n".join(found["OK"])
    for part in (
        str(record_path(image)),
        "site here",
        "its labels",
        "cpu.lock: this btrm's own",
        "the patches: this btrm's",
    ):
        assert part in text


def test_a_flipped_byte_is_refused_and_nothing_in_the_image_is_run(image: Path) -> None:
    tiny.flip(image, at=image.stat().st_size // 2)
    found = said(image)
    assert "another file, or a changed one" in found["FAIL"][0]
    assert any("was not looked at" in line for line in found["WARN"])
    assert not any("labels" in line for line in found["OK"])


def test_a_file_that_took_the_name_is_hashed_though_inode_size_and_time_are_as_they_were(image: Path) -> None:
    before = image.stat()
    assert image_digest(str(image)) == sha256_file(image)  # remembered from here on
    tiny.flip(image, at=image.stat().st_size - 1)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert image.stat().st_ino == before.st_ino
    assert len(said(image)["FAIL"]) == 1


def test_another_image_than_the_sites_is_refused(image: Path) -> None:
    found = said(image, by={"site here": "0" * 64})
    assert ["site here" in line for line in found["FAIL"]] == [True]


def test_the_command_takes_a_sites_image_and_its_pin(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = tmp_path / "here.toml"
    text = f'executor = "slurm"\n[container]\nimage = "{image}"\nsha256 = '
    site.write_text(f'{text}"{sha256_file(image)}"\n')
    assert main(["verify", "--site", str(site)]) == 0
    assert f"as site {site} says" in capsys.readouterr().out
    site.write_text(f'{text}"{"0" * 64}"\n')
    assert main(["verify", "--site", str(site)]) == 1
    assert main(["verify", str(image), "--sha256", "0" * 64]) == 1
    assert main(["verify", str(image), "--signed"]) == 1
    assert capsys.readouterr().out.count("FAIL  ") == 3


def test_without_any_claim_it_says_so(image: Path) -> None:
    record_path(image).unlink()
    assert any("nobody claims" in line for line in said(image)["WARN"])


@pytest.mark.usefixtures("need_apptainer")
def test_labels_that_say_otherwise_than_its_record_are_refused(short_path: Path) -> None:
    image = tiny.build(short_path / "t", tiny.own_record(), lock_sha256="f" * 64, code="another")
    fails = said(image)["FAIL"]
    assert len(fails) == 1 and "its labels" in fails[0]
    assert f"lock_sha256 {'f' * 64}" in fails[0] and "code another" in fails[0]


def test_a_record_beside_it_of_another_build_is_refused(image: Path) -> None:
    write_json(record_path(image), {**(build_record(image) or {}), "base": "sha256:" + "1" * 64})
    fails = said(image)["FAIL"]
    assert len(fails) == 1 and "base sha256:1111" in fails[0]


@pytest.mark.usefixtures("need_apptainer")
def test_another_lock_or_other_patches_are_told_and_refused_on_request(short_path: Path) -> None:
    image = tiny.build(short_path / "t", tiny.own_record(lock_sha256="e" * 64, patches_sha256="d" * 64))
    assert not said(image)["FAIL"]
    fails = said(image, lock=True)["FAIL"]
    assert [line.partition(":")[0] for line in fails] == ["cpu.lock", "the patches"]


@pytest.mark.usefixtures("need_apptainer")
@pytest.mark.parametrize("prepared", [True, False])
def test_a_prepared_base_is_never_said_to_be_ours(short_path: Path, prepared: bool) -> None:
    cu13 = get_image("cu13")
    assert cu13.base is not None
    ours, file = cu13.base.partition("@")[2], "sha256:" + "7" * 64
    told = {"variant": "cu13", "lock_sha256": sha256_file(cu13.packages.path), "base": ours}
    image = tiny.build(short_path / "t", tiny.own_record(**told, base_file=file if prepared else None))
    found = said(image, lock=True)
    assert not found["FAIL"]
    lines = [line for line in found["OK"] if line.startswith("the base")]
    own = f"the base: {file}, prepared from {ours} (its own word)" if prepared else f"the base: {ours}: this btrm's own"
    assert lines == [own]


@pytest.mark.usefixtures("need_apptainer")
def test_another_base_is_told_with_the_file_that_was_used(short_path: Path) -> None:
    other, file = "sha256:" + "6" * 64, "sha256:" + "7" * 64
    image = tiny.build(short_path / "t", tiny.own_record(variant="cu12", base=other, base_file=file))
    assert any(f"the base: {file}, prepared from {other} (its own word); " in line for line in said(image)["WARN"])
    assert any("the base: " in line for line in said(image, lock=True)["FAIL"])


def test_the_base_file_counts_in_the_record_beside_it(image: Path) -> None:
    write_json(record_path(image), {**(build_record(image) or {}), "base_file": "sha256:" + "7" * 64})
    fails = said(image)["FAIL"]
    assert len(fails) == 1 and "base_file sha256:7777" in fails[0]


@pytest.mark.usefixtures("need_apptainer")
def test_an_image_of_others_is_told_from_ours(short_path: Path) -> None:
    image = tiny.build(short_path / "t", {"whatever": 1})
    assert any("variant None: not one of this btrm's" in line for line in said(image)["WARN"])
    assert any("variant None: not one of this btrm's" in line for line in said(image, lock=True)["FAIL"])


@pytest.mark.usefixtures("need_apptainer")
def test_what_is_no_image_is_an_error_and_not_a_pass(tmp_path: Path) -> None:
    (tmp_path / "x.sif").write_text("no image")
    with pytest.raises(ConfigError, match=r"x\.sif"):
        said(tmp_path / "x.sif")


def test_a_sandbox_can_be_looked_at_but_not_pinned(tiny_image: Path, short_path: Path) -> None:
    box = short_path / "box"
    words = ["apptainer", "build", "--sandbox", str(box), str(tiny_image)]
    subprocess.run(words, check=True, capture_output=True)
    found = said(box)
    assert not found["FAIL"] and any("its labels" in line for line in found["OK"])
    assert len(said(box, by={"--sha256": "0" * 64}, signed=True)["FAIL"]) == 2


def test_unsigned_is_a_warning_until_it_is_demanded(image: Path, as_us: str) -> None:
    assert "not signed" in said(image)["WARN"][0]
    assert "not signed" in said(image, signed=True)["FAIL"][0]
    assert "not signed" in said(image, keys=(as_us,))["FAIL"][0]


def test_a_signed_image_passes_and_its_record_tells_what_was_built(image: Path, as_us: str) -> None:
    unsigned = sha256_file(image)
    after = sign(image)
    assert after == sha256_file(image) != unsigned
    record = build_record(image)
    assert record is not None and (record["sha256"], record["unsigned_sha256"]) == (after, unsigned)
    found = said(image, signed=True, keys=(as_us.lower(),), lock=True)
    assert found["FAIL"] == [] and any(as_us in line for line in found["OK"])
    sign(image)  # twice: what was built stays known
    assert (build_record(image) or {})["unsigned_sha256"] == unsigned


@pytest.mark.usefixtures("as_us")
def test_a_byte_changed_after_signing_breaks_the_signature(image: Path) -> None:
    sign(image)
    tiny.flip(image, at=image.stat().st_size // 2)
    record_path(image).unlink()
    assert "does not hold" in said(image)["FAIL"][0]


def test_an_image_that_another_signed_anew_is_refused(
    image: Path, as_us: str, keyrings: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    signed_by(keyrings["theirs"], image, monkeypatch)
    assert "unknown entity" in said(image)["FAIL"][0]
    monkeypatch.setenv("APPTAINER_KEYSDIR", str(keyrings["theirs"]))  # known, and still not the one that is demanded
    theirs = fingerprint(keyrings["theirs"])
    assert said(image, signed=True)["FAIL"] == []
    fails = said(image, keys=(as_us,))["FAIL"]
    assert len(fails) == 1 and f"signed by {theirs}, not by {as_us}" in fails[0]


def test_the_end_of_a_fingerprint_is_not_taken_for_it(image: Path, as_us: str) -> None:
    sign(image)
    with pytest.raises(ConfigError, match="40 hex digits"):
        said(image, keys=(as_us[-8:],))


@pytest.mark.usefixtures("as_us")
def test_what_is_not_as_recorded_is_not_signed(image: Path) -> None:
    tiny.flip(image, at=5000)
    before = sha256_file(image)
    with pytest.raises(ConfigError, match="not what was built"):
        sign(image)
    assert sha256_file(image) == before


@pytest.mark.usefixtures("as_us")
def test_a_sign_that_was_cut_short_can_be_done_again(image: Path) -> None:
    unsigned = image.with_name("unsigned.sif")
    shutil.copyfile(image, unsigned)
    sign(image)
    unsigned.replace(image)  # the record was written, the rename did not come
    assert len(said(image)["FAIL"]) == 1
    sign(image)
    assert said(image, signed=True)["FAIL"] == []


@pytest.mark.usefixtures("as_us")
def test_through_a_link_the_image_itself_is_signed_and_verified(image: Path, tmp_path: Path) -> None:
    link = tmp_path / "current" / "image.sif"
    link.parent.mkdir()
    link.symlink_to(image)
    assert str(record_path(image)) in "\n".join(said(link)["OK"])
    after = sign(link)
    assert link.is_symlink() and sha256_file(image) == after == (build_record(image) or {})["sha256"]
    assert list(link.parent.iterdir()) == [link]
    assert said(link, signed=True)["FAIL"] == said(image, signed=True)["FAIL"] == []
    record_path(image).replace(record_path(link))  # where somebody moved the two apart
    assert str(record_path(link)) in "\n".join(said(link)["OK"])


def test_the_cpu_image_is_what_this_btrm_has_locked(cpu_image: Path) -> None:
    found = said(cpu_image, lock=True)
    assert found["FAIL"] == [] and any("cpu.lock: this btrm's own" in line for line in found["OK"])
