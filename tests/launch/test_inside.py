from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import btrm
from btrm.launch import inside
from btrm.launch.inside import REQUIRES, missing_packages
from btrm.launch.snapshot import snapshot


def test_what_btrm_needs_is_here() -> None:
    from importlib import metadata

    assert missing_packages(metadata.requires("btrm") or []) == []


def test_what_lacks_is_named_with_what_is_there() -> None:
    problems = missing_packages(["pydantic>=1,<2", "nowhere-to-be-found>=3", "numpy>=1", "absent ; extra == 'train'"])
    assert problems[0].startswith("has pydantic 2.") and problems[0].endswith("btrm needs pydantic<2,>=1")
    assert problems[1:] == ["has no nowhere-to-be-found"]


def test_without_a_parser_names_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside, "_PARSERS", ("no_such_module",))
    requires = ["pydantic>=99", "nowhere-to-be-found[x]>=3", "absent; extra == 'train'"]
    assert missing_packages(requires) == ["has no nowhere-to-be-found"]


def test_a_module_runs_as_if_it_had_been_called(tmp_path: Path) -> None:
    made = snapshot(tmp_path)
    (tmp_path / "there.py").write_text("import sys\nprint(__name__, sys.argv[1:])\nsys.exit(75)\n")
    words = [sys.executable, "-m", "btrm.launch.inside", "-m", "there", "a", "b c"]
    env = {"PYTHONPATH": f"{made}:{tmp_path}"}
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("__main__ ['a', 'b c']\n", 75)
    assert "pydantic>=2" in (made / REQUIRES).read_text()
    (made / REQUIRES).write_text("pydantic>=99\n")
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 78 and done.stdout == ""
    assert (
        done.stderr.startswith("btrm: image_unfit: the image has pydantic 2.") and "needs pydantic>=99" in done.stderr
    )


def test_only_pythons_own_library_is_needed_to_look(tmp_path: Path) -> None:
    made = snapshot(tmp_path)
    (made / REQUIRES).write_text("pydantic>=2\n")
    words = [sys.executable, "-S", "-m", "btrm.launch.inside", "-m", "there"]  # no site-packages
    done = subprocess.run(words, env={"PYTHONPATH": str(made)}, capture_output=True, text=True, check=False)
    assert done.returncode == 78 and "the image has no pydantic" in done.stderr
    assert Path(btrm.__file__).exists()
