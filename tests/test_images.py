from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from btrm import images
from btrm.config import ConfigError
from btrm.images import STAT, image_digest, image_record, image_stat, inside_image


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_an_image_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "x.sif"
    image.write_bytes(b"one")
    expected = hashlib.sha256(b"one").hexdigest()
    assert image_digest(str(image)) == expected
    link = tmp_path / "link.sif"
    link.symlink_to(image)
    with monkeypatch.context() as patch:
        patch.setattr(images, "sha256_file", lambda _: pytest.fail("hashed again"))
        assert image_digest(str(image)) == image_digest(str(link)) == expected


def test_other_bytes_are_seen_though_size_and_time_are_the_same(tmp_path: Path) -> None:
    image = tmp_path / "x.sif"
    image.write_bytes(b"one")
    before = image.stat()
    assert image_digest(str(image)) == hashlib.sha256(b"one").hexdigest()
    while image.stat().st_ctime_ns == before.st_ctime_ns:  # older kernels' clocks tick every 4 ms or so
        image.write_bytes(b"two")
        os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert image_digest(str(image)) == hashlib.sha256(b"two").hexdigest()


def test_a_cache_that_cannot_be_written_or_is_torn_costs_time_alone(tmp_path: Path) -> None:
    image = tmp_path / "x.sif"
    image.write_bytes(b"one")
    (tmp_path / "cache").write_text("not a folder")
    assert image_digest(str(image)) == hashlib.sha256(b"one").hexdigest()
    (tmp_path / "cache").unlink()
    image_digest(str(image))
    (record,) = (tmp_path / "cache/btrm/images").iterdir()
    record.write_text("")
    assert image_digest(str(image)) == hashlib.sha256(b"one").hexdigest()


def test_references_and_sandboxes(tmp_path: Path) -> None:
    assert image_digest(f"oras://reg/x@sha256:{'5' * 64}") == "5" * 64
    assert image_digest("docker://ubuntu:24.04") is None and image_digest(str(tmp_path)) is None
    with pytest.raises(ConfigError, match="no such file"):
        image_digest(str(tmp_path / "y.sif"))


def test_the_shell_sees_the_same(tmp_path: Path) -> None:
    image = tmp_path / "x.sif"
    image.write_bytes(b"one")
    said = subprocess.run(["stat", "-Lc", STAT, str(image)], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == image_stat(image)


def test_outside_of_an_image_there_is_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "IMAGE_RECORD", tmp_path / "image.json")
    assert image_record() == {}
    (tmp_path / "image.json").write_text('{"version": "0.1.0"}')
    assert image_record() == {"version": "0.1.0"}


def test_by_hand_an_image_is_named_as_far_as_it_says_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "IMAGE_RECORD", tmp_path / "image.json")
    assert inside_image({}) == (None, None) and inside_image({"APPTAINER_CONTAINER": "/x.sif"}) == ("/x.sif", None)
    (tmp_path / "image.json").write_text('{"variant": "cpu", "lock_sha256": "1a", "code": "2b"}')
    assert inside_image({}) == ("btrm cpu (lock 1a)", None)  # other code than the image's stands in for it
    monkeypatch.setattr(images, "__file__", str(tmp_path / "venv/btrm/images.py"))
    assert inside_image({"APPTAINER_CONTAINER": "/x.sif"}) == ("/x.sif", "2b")
