from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from btrm.config import ConfigError
from btrm.launch import snapshot as module
from btrm.launch.snapshot import check_code, code_digest, snapshot, snapshot_path
from btrm.versions import REVISION, git_revision


def test_the_same_code_is_copied_once(tmp_path: Path) -> None:
    assert not snapshot_path(tmp_path).exists()
    made = snapshot(tmp_path)
    assert made == snapshot_path(tmp_path) == snapshot(tmp_path)
    assert [path.name for path in (tmp_path / ".code").iterdir()] == [made.name]
    assert not list(made.rglob("__pycache__")) and (made / "btrm/_shipped/slurm/sites/local.toml").is_file()
    assert (made / REVISION).read_text() == (git_revision() or "")


def test_jobs_run_the_copy(tmp_path: Path) -> None:
    made = snapshot(tmp_path)
    code = "import btrm.launch.job as j; from btrm.plugins import shipped; print(j.__file__); print(shipped('slurm'))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(made)}, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.splitlines() == [str(made / "btrm/launch/job.py"), str(made / "btrm/_shipped/slurm")]


def test_other_code_gets_a_folder_of_its_own_and_leaves_the_first_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = snapshot(tmp_path / "run")
    edited = tmp_path / "edited.py"
    edited.write_text("# edited while jobs are queued\n")
    files = module._files()
    monkeypatch.setattr(module, "_files", lambda: {**files, Path("btrm/show.py"): edited})
    second = snapshot(tmp_path / "run")
    assert second != first and (second / "btrm/show.py").read_text() == edited.read_text()
    assert (first / "btrm/show.py").read_text() != edited.read_text()


def test_of_two_at_once_one_copy_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = module._copy

    def beaten(files: Any, target: Path) -> None:
        copy(files, target)  # another submission, a moment before
        copy(files, target)

    monkeypatch.setattr(module, "_copy", beaten)
    made = snapshot(tmp_path)
    assert [path.name for path in (tmp_path / ".code").iterdir()] == [made.name]


def test_other_code_than_the_launchers_does_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    check_code(code_digest(), None)
    check_code(None, None)  # a plan of an older version asks for nothing
    with pytest.raises(ConfigError, match="is the run not bound into the image") as error:
        check_code("0" * 16, "/run/.code/0")
    assert code_digest() in str(error.value) and "/run/.code/0" in str(error.value)
    monkeypatch.setattr(module, "image_record", lambda: {"code": code_digest(), "version": "0.0.9"})
    with pytest.raises(
        ConfigError, match=r"the image's own of 0\.0\.9\) is not the launcher's \(0+\), of which no copy"
    ):
        check_code("0" * 16, None)


def test_a_copy_names_itself_as_what_it_was_made_of_until_it_is_changed(tmp_path: Path) -> None:
    made = snapshot(tmp_path)
    words = [sys.executable, "-c", "from btrm.launch.snapshot import code_digest; print(code_digest())"]

    def named() -> str:
        done = subprocess.run(words, env={"PYTHONPATH": str(made)}, cwd=tmp_path, capture_output=True, text=True)
        return done.stdout.strip()

    assert named() == made.name == code_digest()
    (made / "btrm" / "show.py").write_text("# changed by hand\n")
    assert named() != made.name
