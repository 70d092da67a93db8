"""What a folder holds, whose adapter it is, and which checkpoint is whole."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from btrm import checkpoints as module
from btrm.checkpoints import (
    base_identity,
    check_adapter_base,
    checkpoint_kind,
    checkpoints,
    is_whole,
    known_sha256,
    write_mark,
)
from btrm.config import ConfigError
from btrm.runs import sha256_path


def make(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def full(folder: Path, weights: str = "w") -> Path:
    return make(folder, config__json="{}", model__safetensors=weights)


def adapter(folder: Path, base: str) -> Path:
    config = json.dumps({"base_model_name_or_path": base})
    return make(folder, adapter_config__json=config, adapter_model__safetensors="a")


def test_a_folder_is_what_its_files_say(tmp_path: Path) -> None:
    assert checkpoint_kind(full(tmp_path / "full")) == "full"
    assert checkpoint_kind(adapter(tmp_path / "adapter", "x")) == "adapter"


@pytest.mark.parametrize("files", [{}, {"config__json": "{}"}, {"adapter_config__json": "{}"}, {"optimizer__pt": "o"}])
def test_a_folder_without_weights_is_refused(tmp_path: Path, files: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="neither weights"):
        checkpoint_kind(make(tmp_path / "x", **files))
    with pytest.raises(ConfigError, match="no such folder"):
        checkpoint_kind(tmp_path / "y")


def test_an_adapter_belongs_to_its_base_wherever_that_lies(tmp_path: Path) -> None:
    one, two = full(tmp_path / "one", "1"), full(tmp_path / "two", "2")
    moved = full(tmp_path / "moved", "1")
    mine = adapter(tmp_path / "mine", str(one))
    write_mark(mine, base_identity(str(one)), 3)
    check_adapter_base(mine, str(one))
    check_adapter_base(mine, str(moved))
    with pytest.raises(ConfigError, match="an adapter for another base"):
        check_adapter_base(mine, str(two))


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, read = full(tmp_path / "model"), list[str]()

    def counted(path: Path) -> str:
        read.append(path.name)
        return sha256_path(path)

    monkeypatch.setattr("btrm.checkpoints.sha256_path", counted)
    first = [base_identity(str(folder)), base_identity(str(folder)), known_sha256(folder), known_sha256(folder)]
    assert read == ["model.safetensors", "model"] and first[0] == first[1] and first[2:] == [sha256_path(folder)] * 2
    (folder / "model.safetensors").write_text("other")
    assert base_identity(str(folder)) != first[0] and known_sha256(folder) == sha256_path(folder) != first[2]
    os.utime(folder / "config.json", (1, 1))  # now may be the moment at which it was written, by the kernel's clock
    assert known_sha256(folder) == sha256_path(folder) and read.count("model") == 3


def test_a_foreign_adapter_is_known_by_its_own_word(tmp_path: Path) -> None:
    one, two = full(tmp_path / "one", "1"), full(tmp_path / "two", "2")
    foreign = adapter(tmp_path / "foreign", str(one))
    check_adapter_base(foreign, str(one))
    with pytest.raises(ConfigError, match="an adapter for another base"):
        check_adapter_base(foreign, str(two))
    check_adapter_base(adapter(tmp_path / "hub", "owner/name"), "owner/name")


def test_a_checkpoint_is_whole_when_marked_and_unchanged_in_size(tmp_path: Path) -> None:
    folder = full(tmp_path / "checkpoint-4")
    assert not is_whole(folder)
    write_mark(folder, "hub:x", 4)
    assert is_whole(folder)
    (folder / "model.safetensors").write_text("")
    assert not is_whole(folder)


def test_checkpoints_are_sorted_by_step(tmp_path: Path) -> None:
    for name in ("checkpoint-100", "checkpoint-20", "last-checkpoint", "checkpoint-x"):
        (tmp_path / name).mkdir()
    assert [p.name for p in checkpoints(tmp_path)] == ["checkpoint-20", "checkpoint-100"]


def test_a_model_is_hashed_once_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = tmp_path / "model.bin"
    model.write_bytes(b"weights")
    digest = known_sha256(model)
    # Another process: what it would read is not there, what was noted is.
    module._sha256.cache_clear()
    monkeypatch.setattr(module, "sha256_path", lambda _: pytest.fail("read again"))
    assert known_sha256(model) == digest
    model.write_bytes(b"other weights")
    monkeypatch.setattr(module, "sha256_path", lambda _: "read")
    assert known_sha256(model) == "read"


@pytest.mark.parametrize("gone", ["model.safetensors", "btrm.json"])
def test_a_checkpoint_that_is_deleted_under_the_look_is_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    """A trainer that keeps few deletes old ones while `eval --watch` and `status` look."""
    folder = full(tmp_path / "checkpoint-4")
    write_mark(folder, "hub:x", 4)
    stat = Path.stat

    def deleted_after(path: Path, **options: bool) -> os.stat_result:
        found = stat(path, **options)
        if path.name == gone:
            path.unlink()
        return found

    monkeypatch.setattr(Path, "stat", deleted_after)
    assert is_whole(folder) in {True, False}  # whichever it saw; it raises nothing
    monkeypatch.undo()
    (folder / gone).unlink(missing_ok=True)
    assert not is_whole(folder)
