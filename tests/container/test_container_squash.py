"""An image's file system by itself: what enroot would unpack is what Apptainer mounts."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import tiny

from btrm.config import ConfigError
from btrm.container.cli import main
from btrm.container.run_build import record_path
from btrm.container.signing import sign
from btrm.container.squash import default_target, squash
from btrm.container.verify import Demand, checks
from btrm.runs import sha256_file


@pytest.mark.slow
def test_the_file_system_of_an_image(tiny_image: Path, tmp_path: Path) -> None:
    image, out = tiny.copy(tiny_image, tmp_path), tmp_path / "tiny.sqsh"
    digest = squash(image, out)
    assert out.read_bytes()[:4] == b"hsqs"
    assert digest == sha256_file(out)
    record = json.loads(record_path(out).read_text())
    assert (record["sha256"], record["sif_sha256"]) == (digest, sha256_file(image))
    assert record["variant"] == json.loads(record_path(image).read_text())["variant"]
    # Apptainer mounts a bare squashfs too, where it may: what is in it is what was in the image.
    words = ["apptainer", "-q", "exec", str(out), "cat", "/opt/btrm/image.json"]
    inside = subprocess.run(words, capture_output=True, text=True, check=False)
    assert json.loads(inside.stdout)["variant"] == record["variant"], inside.stderr


def test_only_the_ending_sif_is_taken_from_a_name() -> None:
    assert default_target(Path("a/btrm-v1.2")) == Path("a/btrm-v1.2.sqsh")
    assert default_target(Path("a/btrm-v1.2.sif")) == Path("a/btrm-v1.2.sqsh")


@pytest.mark.slow
def test_what_has_the_name_is_replaced_only_with_force(tiny_image: Path, tmp_path: Path) -> None:
    image, out = tiny.copy(tiny_image, tmp_path), tmp_path / "tiny.sqsh"
    out.write_text("somebody's")
    assert main(["squash", str(image)]) == 2
    assert out.read_text() == "somebody's" and not record_path(out).exists()
    assert main(["squash", "--force", str(image)]) == 0
    assert out.read_bytes()[:4] == b"hsqs"
    before = sha256_file(image)
    with pytest.raises(ConfigError, match="another name"):
        squash(image, image, replacing=True)
    assert sha256_file(image) == before


@pytest.mark.slow
@pytest.mark.usefixtures("need_apptainer")
def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.sif").write_text("not an image")
    with pytest.raises(ConfigError, match="no SIF with one squashfs"):
        squash(tmp_path / "x.sif", tmp_path / "x.sqsh")
    assert not list(tmp_path.glob("*sqsh*"))


@pytest.mark.slow
def test_a_file_system_is_verified_by_the_sif_that_it_is_of(
    tiny_image: Path, tmp_path: Path, keyrings: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    image, out = tiny.copy(tiny_image, tmp_path), tmp_path / "tiny.sqsh"
    squash(image, out)
    said = f"squashed from {image}, sha256 {sha256_file(image)}"
    assert told(out, "squashed") == [("OK", said)]
    assert told(out, "signed") == [("WARN", "not signed: only a .sif can be")]
    assert told(out, "signed", signed=True) == [("FAIL", "not signed: only a .sif can be")]
    monkeypatch.setenv("APPTAINER_KEYSDIR", str(keyrings["ours"]))
    with pytest.raises(ConfigError, match=r"only a \.sif can be signed"):
        sign(out)
    sign(image)  # its sha256 is another now, what is in it is not
    assert told(out, "squashed") == [("OK", said)]
    squash(image, out, replacing=True)
    sign(image)
    assert [level for level, _ in told(out, "squashed")] == ["OK"]
    tiny.flip(image, at=image.stat().st_size // 2)
    assert [level for level, _ in told(out, "squashed")] == ["FAIL"]
    with pytest.raises(ConfigError, match="not what was built"):
        squash(image, out, replacing=True)
    image.unlink()
    assert [level for level, _ in told(out, "squashed")] == ["WARN"]
    tiny.flip(out, at=out.stat().st_size // 2)
    assert [level for level, _ in told(out, "another file")] == ["FAIL"]


def told(image: Path, word: str, *, signed: bool = False) -> list[tuple[str, str]]:
    """(level, what is said) of the checks that have a word in them"""
    found = checks(image, Demand({}, signed=signed))
    return [(check.level, check.what) for check in found if word in check.what]
