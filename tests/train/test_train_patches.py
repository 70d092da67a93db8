"""The patch series: in step with btrm's modules, applied to the pinned release alone, whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from swift_trees import SERIES, load, patch, slim_copy, touched

from btrm.train import pair_hooks, pair_sampler, swift_series
from btrm.versions import LOCAL_VERSION, package_version

MARKER = "swift/btrm_patches.json"


class Killed(BaseException):
    """Stands for kill -9."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, need_swift: None, need_patch: None) -> Path:  # noqa: ARG001
    """A plain copy; nobody changes it."""
    return slim_copy(tmp_path_factory.mktemp("plain"))


@pytest.fixture
def tree(tmp_path: Path, plain: Path) -> Path:
    return shutil.copytree(plain, tmp_path / "tree")


def files(tree: Path) -> dict[str, bytes]:
    """Return all that lies in a tree but compiled code."""
    found = (path for path in tree.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(tree)): path.read_bytes() for path in found}


def test_the_series_is_in_step_with_btrms_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    refresh = load("refresh", monkeypatch)
    again = "make patches writes it anew"
    assert (SERIES / refresh.FIRST).read_bytes() == refresh.new_files(), again
    series = refresh.Series(SERIES)
    for module in (pair_sampler, pair_hooks):
        text = Path(str(module.__file__)).read_bytes()
        assert (
            series.after[f"swift/rlhf_trainers/{Path(str(module.__file__)).name}"] == hashlib.sha256(text).hexdigest()
        ), again
    assert series.sha256 == swift_series.SERIES, again
    assert swift_series.own_version("4.6.0") == f"4.6.0{LOCAL_VERSION}{series.sha256[:8]}"


def test_the_modules_stand_alone() -> None:
    for module in (pair_sampler, pair_hooks):
        text = Path(str(module.__file__)).read_text()
        assert "import btrm" not in text and "from btrm" not in text


def test_applied_twice_and_taken_out_it_leaves_nothing(tree: Path, plain: Path) -> None:
    assert patch(tree, "--check").returncode == 1
    first, second = patch(tree), patch(tree)
    assert f"patched (series {swift_series.SERIES[:8]})" in first.stdout
    assert "already patched" in second.stdout and second.returncode == 0
    assert patch(tree, "--check").returncode == 0
    assert json.loads((tree / MARKER).read_text())["series"] == swift_series.SERIES
    changed = {path for path, content in files(tree).items() if files(plain).get(path) != content}
    assert changed == {*touched(), MARKER, "ms_swift-4.6.0.dist-info/RECORD"}
    assert patch(tree, "--reverse").returncode == 0
    assert files(tree) == files(plain)
    assert "already plain" in patch(tree, "--reverse").stdout


def test_pip_takes_the_patched_package_for_a_whole_one(tree: Path) -> None:
    patch(tree)
    record = (tree / "ms_swift-4.6.0.dist-info/RECORD").read_text().splitlines()
    told = {line.split(",")[0]: line.split(",")[1:] for line in record}
    assert len(told) == len(record)
    for path in (*touched(), MARKER):
        content = (tree / path).read_bytes()
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        assert told[path] == [f"sha256={digest}", str(len(content))]


def test_manifests_name_the_series_and_another_one_is_not_ours(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tree))
    assert package_version("ms-swift") == "4.6.0" and not swift_series.is_in()
    patch(tree)
    assert package_version("ms-swift") == swift_series.own_version("4.6.0") and swift_series.is_in()
    (tree / MARKER).write_text('{"series": "00000000ff", "files": {}}')
    assert package_version("ms-swift") == "4.6.0+btrm.00000000" and not swift_series.is_in()


def test_another_release_is_refused(tree: Path) -> None:
    metadata = tree / "ms_swift-4.6.0.dist-info/METADATA"
    metadata.write_text(metadata.read_text().replace("Version: 4.6.0", "Version: 4.6.1", 1))
    done = patch(tree)
    assert done.returncode == 2 and "4.6.1" in done.stderr and "pip install ms-swift==4.6.0" in done.stderr


def test_a_file_that_is_not_the_releases_is_named_and_nothing_is_changed(tree: Path) -> None:
    edited = tree / "swift/rl_core/advantage.py"
    edited.write_text(edited.read_text() + "\n")
    before = files(tree)
    done = patch(tree)
    assert done.returncode == 2
    assert "swift/rl_core/advantage.py" in done.stderr and "arguments.py" not in done.stderr
    assert files(tree) == before


def test_another_series_is_not_overwritten(tree: Path) -> None:
    (tree / MARKER).write_text('{"series": "00ff", "files": {}}')
    done = patch(tree)
    assert done.returncode == 2 and "another series (00ff)" in done.stderr


def test_what_is_missing_is_said(tree: Path, tmp_path: Path) -> None:
    done = patch(tree, PATH=str(tmp_path / "none"))
    assert done.returncode == 2 and "GNU patch is not here; install it" in done.stderr
    done = patch(tmp_path / "none")
    assert done.returncode == 2 and f"no ms-swift in {tmp_path / 'none'}" in done.stderr


def test_a_hunk_that_does_not_fit_changes_nothing(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apply, before = load("apply", monkeypatch), files(tree)
    sections = apply.sections
    monkeypatch.setattr(apply, "sections", lambda f: {k: v.replace(b"\n ", b"\n  ") for k, v in sections(f).items()})
    with pytest.raises(apply.RefusedError, match="patch failed on swift/"):
        apply.run(tree, "apply")
    assert files(tree) == before


def test_a_cache_that_shares_its_files_stays_as_it_is(tree: Path, tmp_path: Path, plain: Path) -> None:
    linked = shutil.copytree(tree, tmp_path / "linked", copy_function=os.link)
    assert patch(linked).returncode == 0
    assert files(tree) == files(plain)


@pytest.mark.parametrize(
    ("begun", "ended"), [("apply", "apply"), ("apply", "reverse"), ("reverse", "apply"), ("reverse", "reverse")]
)
def test_killed_anywhere_another_call_ends_it(
    begun: str, ended: str, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply = load("apply", monkeypatch)
    patched = shutil.copytree(plain, tmp_path / "patched")
    apply.run(patched, "apply")
    whole = {"apply": files(patched), "reverse": files(plain)}
    put, after_patch = apply.put, cache(lambda direction, *what, old=apply.after_patch: old(*what, list(direction)))
    monkeypatch.setattr(apply, "after_patch", lambda *what: after_patch(tuple(what[-1]), *what[:-1]))
    monkeypatch.setattr(apply, "compiled", lambda _: None)
    for calls in count():
        at = shutil.copytree(patched if begun == "reverse" else plain, tmp_path / f"killed-{calls}")
        left = iter(range(calls))

        def dying(path: Path, content: bytes | None, left: Any = left) -> None:
            if next(left, None) is None:
                raise Killed
            put(path, content)

        monkeypatch.setattr(apply, "put", dying)
        try:
            apply.run(at, begun)
            break
        except Killed:
            pass
        monkeypatch.setattr(apply, "put", put)
        assert apply.run(at, ended) == 0
        assert files(at) == whole[ended], f"killed at its {calls}th file"
    assert calls == len(touched()) + 3, "each file, RECORD, and the marker twice"
