from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from btrm.staging import listing, stage_in


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A snapshot as the hub's cache keeps one: links to blobs."""
    blobs, folder = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    (folder / "sub").mkdir(parents=True)
    for name, text in (("config.json", "{}"), ("model.safetensors", "w" * 4096), ("sub/x.txt", "x")):
        (blobs / name.replace("/", "_")).write_text(text)
        (folder / name).symlink_to(blobs / name.replace("/", "_"))
    return folder


def test_a_folder_and_a_file_are_copied_once_and_found_again(model: Path, tmp_path: Path) -> None:
    image = tmp_path / "image.sif"
    image.write_bytes(b"sif" * 100)
    first = stage_in([model, image, model], tmp_path / "scratch")
    local = first.local[model]
    assert local != model and (local / "model.safetensors").read_text() == "w" * 4096
    assert not (local / "sub/x.txt").is_symlink() and first.local[image].read_bytes() == image.read_bytes()
    assert (first.bytes, first.kept, first.saved_s) == (4096 + 2 + 1 + 300, {}, 0.0)
    before = listing(local)
    again = stage_in([model, image], tmp_path / "scratch")
    assert again.local == first.local and again.bytes == 0 and listing(local) == before and again.saved_s > 0
    assert set(again.results()) == {"bytes", "seconds", "saved_s", "kept"} and json.dumps(again.results())


def test_a_source_that_changed_gets_another_copy(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("old\n")
    old = stage_in([data], tmp_path / "scratch").local[data]
    data.write_text("new\n")
    os.utime(data, ns=(1, 1))
    new = stage_in([data], tmp_path / "scratch").local[data]
    assert (old.read_text(), new.read_text()) == ("old\n", "new\n")


def test_a_copy_that_lost_a_file_is_made_again(model: Path, tmp_path: Path) -> None:
    local = stage_in([model], tmp_path / "scratch").local[model]
    (local / "config.json").unlink()
    again = stage_in([model], tmp_path / "scratch")
    assert again.local[model] == local and (local / "config.json").exists() and again.bytes > 0
    shutil.rmtree(local.parent)
    assert stage_in([model], tmp_path / "scratch").bytes > 0 and (local / "config.json").exists()


def test_what_cannot_be_copied_is_read_where_it_is(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging = stage_in([tmp_path / "nothing"], tmp_path / "scratch")
    assert staging.local[tmp_path / "nothing"] == tmp_path / "nothing" and "no such file" in str(staging.kept)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    staging = stage_in([model], tmp_path / "scratch")
    assert staging.local[model] == model and "GB needed" in staging.kept[model]
    assert stage_in([model], Path("/proc/none")).local[model] == model


def test_a_source_that_changes_meanwhile_is_not_taken(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copytree = shutil.copytree

    def slow(source: Path, target: Path, *rest: object) -> Path:
        copytree(source, target, *rest)
        (model / "late.txt").write_text("late")
        return target

    monkeypatch.setattr(shutil, "copytree", slow)
    staging = stage_in([model], tmp_path / "scratch")
    assert "changed while it was copied" in staging.kept[model]
    assert [path for path in (tmp_path / "scratch").rglob("*") if path.is_dir()] == [
        tmp_path / f"scratch/btrm-staged-{os.getuid()}"
    ]


def test_a_variable_that_is_not_set_makes_no_folder(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_TMPDIR", raising=False)
    staging = stage_in([model], Path("$SLURM_TMPDIR"))
    assert staging.local[model] == model and "not set on this node" in staging.kept[model]
    assert not Path("$SLURM_TMPDIR").exists()


def test_a_variable_in_scratch_is_the_nodes(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path / "node"))
    assert stage_in([model], Path("$SLURM_TMPDIR")).local[model].is_relative_to(tmp_path / "node")


_MANY = """
import sys
from pathlib import Path
from btrm.staging import stage_in
staging = stage_in([Path(sys.argv[1])], Path(sys.argv[2]))
print(staging.bytes, *staging.local.values())
"""


def test_of_many_processes_one_copies_and_all_read_the_copy(model: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _MANY, str(model), str(tmp_path / "scratch")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = [process.communicate(timeout=60)[0].split() for process in started]
    assert sorted(int(answer[0]) for answer in answers) == [0, 0, 0, 4099]
    assert len({answer[1] for answer in answers}) == 1


def test_a_process_killed_while_copying_leaves_no_copy(model: Path, tmp_path: Path) -> None:
    hang = "import shutil, time\nshutil.copytree = lambda *a: (print('copies', flush=True), time.sleep(600))\n"
    command = [sys.executable, "-c", hang + _MANY, str(model), str(tmp_path / "scratch")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "copies\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    staging = stage_in([model], tmp_path / "scratch")
    assert staging.bytes == 4099 and staging.kept == {} and staging.seconds < 60
