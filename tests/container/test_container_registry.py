from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
import tiny

from btrm.config import ConfigError
from btrm.container.cli import main
from btrm.container.image_facts import build_record
from btrm.container.registry import pull, push
from btrm.container.run_build import record_path
from btrm.container.verify import Demand, checks
from btrm.runs import StageError, sha256_file


@pytest.fixture
def image(tiny_image: Path, tmp_path: Path) -> Path:
    return tiny.copy(tiny_image, tmp_path)


def blob(store: Path, digest: str) -> Path:
    """Return where a registry keeps the bytes of a digest."""
    name = digest.removeprefix("sha256:")
    return store / "docker" / "registry" / "v2" / "blobs" / "sha256" / name[:2] / name / "data"


def repoint(store: Path, manifest: bytes) -> None:
    """Have the tag v1 of btrm/image name another manifest, whose bytes go into the store: as one who owns it could."""
    digest = hashlib.sha256(manifest).hexdigest()
    blob(store, digest).parent.mkdir(parents=True)
    blob(store, digest).write_bytes(manifest)
    links = store / "docker" / "registry" / "v2" / "repositories" / "btrm" / "image" / "_manifests"
    for link in (links / "revisions" / "sha256" / digest / "link", links / "tags" / "v1" / "current" / "link"):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.write_text(f"sha256:{digest}")


@pytest.mark.slow
def test_what_was_pushed_comes_back_as_the_very_same_file(
    image: Path, registry: tuple[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    name = f"oras://{registry[0]}/btrm/image"
    assert main(["push", "--no-https", str(image), f"{name}:v1"]) == 0
    exact = capsys.readouterr().out.split("pull ")[1].split()[0]
    record = build_record(image)
    assert record is not None and record["pushed"][0] == {
        "reference": f"{name}:v1",
        "sha256": sha256_file(image),
        "digest": "sha256:" + exact.partition("@sha256:")[2],
    }
    out = tmp_path / "there" / "out.sif"
    assert main(["pull", "--no-https", exact, str(out)]) == 0
    assert "a tag names" not in capsys.readouterr().err
    assert out.read_bytes() == image.read_bytes()
    assert not [check for check in checks(out, Demand({}, lock=True)) if check.level == "FAIL"]
    assert (build_record(out) or {})["pulled"] == exact
    assert sorted(path.name for path in out.parent.iterdir()) == ["out.sif", "out.sif.json"]


@pytest.mark.slow
def test_a_pull_by_tag_says_that_nothing_names_the_file(
    image: Path, registry: tuple[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    reference = f"oras://{registry[0]}/btrm/image:v1"
    push(image, reference, http=True)
    assert main(["pull", "--no-https", reference, str(tmp_path / "out.sif")]) == 0
    assert "a tag names" in capsys.readouterr().err


@pytest.mark.slow
def test_a_layer_that_was_changed_in_the_registry_is_refused(
    image: Path, registry: tuple[str, Path], tmp_path: Path
) -> None:
    address, store = registry
    done = push(image, f"oras://{address}/btrm/image:v1", http=True)
    tiny.flip(blob(store, done["sha256"]), at=500_000)
    for end in (":v1", f"@{done['digest']}"):
        with pytest.raises(StageError):
            pull(
                f"oras://{address}/btrm/image{end}",
                tmp_path / "out.sif",
                sha256=None,
                replacing=False,
                http=True,
            )
    assert not list(tmp_path.glob("*out.sif*"))


@pytest.mark.slow
def test_another_image_behind_the_same_tag_is_refused_by_digest_and_by_sha256(
    image: Path, registry: tuple[str, Path], tmp_path: Path
) -> None:
    address, store = registry
    reference, out = f"oras://{address}/btrm/image:v1", tmp_path / "out.sif"
    done = push(image, reference, http=True)
    manifest = blob(store, done["digest"]).read_bytes()
    other = tmp_path / "other.sif"
    other.write_bytes(image.read_bytes() + b"\0" * 512)
    evil = hashlib.sha256(other.read_bytes()).hexdigest()
    blob(store, evil).parent.mkdir(parents=True)
    blob(store, evil).write_bytes(other.read_bytes())
    layers = store / "docker" / "registry" / "v2" / "repositories" / "btrm" / "image" / "_layers" / "sha256" / evil
    layers.mkdir(parents=True)
    (layers / "link").write_text(f"sha256:{evil}")
    told = json.loads(manifest)
    told["layers"][0] |= {"digest": f"sha256:{evil}", "size": other.stat().st_size}
    repoint(store, json.dumps(told).encode())
    assert pull(reference, out, sha256=None, replacing=False, http=True) == evil  # the tag itself is taken in
    out.unlink()
    with pytest.raises(StageError, match=f"sha256 is {evil}, not {done['sha256']}"):
        pull(reference, out, sha256=done["sha256"], replacing=False, http=True)
    exact = reference.replace(":v1", f"@{done['digest']}")
    assert pull(exact, out, sha256=None, replacing=False, http=True) == done["sha256"]  # what was pushed is still there
    out.unlink()
    blob(store, done["digest"]).write_bytes(json.dumps(told).encode())  # now the digest's own bytes, too
    with pytest.raises(StageError):
        pull(exact, out, sha256=None, replacing=False, http=True)
    assert not out.exists()


@pytest.mark.slow
def test_a_file_that_is_there_stays_unless_it_shall_be_replaced(
    image: Path, registry: tuple[str, Path], tmp_path: Path
) -> None:
    reference, out = f"oras://{registry[0]}/btrm/image:v1", tmp_path / "out.sif"
    push(image, reference, http=True)
    out.write_text("mine")
    with pytest.raises(ConfigError, match="--force"):
        pull(reference, out, sha256=None, replacing=False, http=True)
    with pytest.raises(StageError, match="nothing was kept"):
        pull(reference, out, sha256="0" * 64, replacing=True, http=True)
    assert out.read_text() == "mine"
    assert pull(reference, out, sha256=None, replacing=True, http=True) == sha256_file(out) == sha256_file(image)


@pytest.mark.slow
def test_apptainers_cache_is_not_believed(
    image: Path, registry: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Apptainer hands out whatever lies in its cache under the digest."""
    monkeypatch.setenv("APPTAINER_CACHEDIR", str(tmp_path / "cache"))
    reference = f"oras://{registry[0]}/btrm/image:v1"
    done = push(image, reference, http=True)
    words = ["apptainer", "pull", "--no-https", str(tmp_path / "plain.sif"), reference]
    subprocess.run(words, check=True, capture_output=True)
    cached = next(path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    tiny.flip(cached, at=500_000)
    assert pull(reference, tmp_path / "out.sif", sha256=None, replacing=False, http=True) == done["sha256"]


@pytest.mark.slow
def test_what_is_not_as_recorded_is_not_pushed(image: Path) -> None:
    tiny.flip(image, at=500_000)
    with pytest.raises(ConfigError, match="its record says"):
        push(image, "oras://127.0.0.1:1/btrm/image:v1", http=True)


@pytest.mark.slow
def test_a_registry_that_is_not_there_is_one_message_and_leaves_nothing(
    image: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    reference = "oras://127.0.0.1:1/btrm/image:v1"
    before = record_path(image).read_bytes()
    assert main(["push", "--no-https", str(image), reference]) == 1
    assert main(["pull", "--no-https", reference, str(tmp_path / "out.sif")]) == 1
    assert capfd.readouterr().err.count("error: ") == 2
    assert record_path(image).read_bytes() == before and not (tmp_path / "out.sif").exists()


@pytest.mark.parametrize(
    "reference",
    ["127.0.0.1/x:v1", "oras://host", "oras://host/Name:v1", "docker://host/n:v1", "oras://h/n:v1@sha256:12"],
)
def test_what_is_no_reference_is_told_what_is(reference: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"oras://HOST/NAME:TAG"):
        pull(reference, tmp_path / "out.sif", sha256=None, replacing=False, http=False)


def test_a_password_in_a_reference_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as told:
        push(tmp_path / "x.sif", "oras://me:hunter2@host/name:v1", http=False)
    assert "registry login" in str(told.value) and "hunter2" not in str(told.value)


def test_a_push_names_a_tag(tmp_path: Path) -> None:
    for reference in ("oras://host/name", f"oras://host/name@sha256:{'0' * 64}"):
        with pytest.raises(ConfigError, match="push takes"):
            push(tmp_path / "x.sif", reference, http=False)
