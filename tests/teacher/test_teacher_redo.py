from __future__ import annotations

from collections import Counter
from contextlib import suppress
from pathlib import Path

import orjson
import pytest
from batch_stage import entries, write_toy

from btrm import stages
from btrm.config import ConfigError
from btrm.leases import claim
from btrm.records import read_judgements
from btrm.runs import Resources, read_manifest, write_json
from btrm.teacher.config import TeacherConfig
from btrm.teacher.journal import journals
from btrm.teacher.redo import redo

PAIRS = 20


def teach(root: Path) -> Path:
    """Run the stage where it is not complete; return its directory."""
    config = TeacherConfig(pairs=str(root / "pairs.parquet"), n_pairs=PAIRS, part_pairs=5)
    prepared = stages.prepare("teacher", config, Resources(), root)
    if not prepared.done:
        write_json(prepared.directory / "stage.json", prepared.request.model_dump(mode="json"))
        stages.execute(prepared.directory / "stage.json")
    return prepared.directory


def outcomes(directory: Path) -> Counter[str]:
    return Counter(read_judgements(directory / "judgements.parquet")["outcome"].to_pylist())


@pytest.fixture
def failed(tmp_path: Path) -> Path:
    """A teacher's directory where six of forty answers are errors."""
    write_toy(tmp_path, PAIRS)
    directory = teach(tmp_path)
    (journal,) = journals(directory / "calls")
    lines = [orjson.loads(line) for line in journal.read_bytes().splitlines()]
    for line in lines[:6]:
        line |= {"finish_reason": "error", "text": "no answer"}
    journal.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    for part in (directory / "parts").iterdir():
        part.unlink()
    (directory / "manifest.json").unlink()
    teach(tmp_path)
    assert outcomes(directory) == {"scored": 2 * PAIRS - 6, "error": 6} and len(entries(tmp_path)) == 2 * PAIRS
    return directory


def test_what_is_forgotten_is_asked_again_and_nothing_else(failed: Path, tmp_path: Path) -> None:
    assert redo(failed, ["error", "truncated"]) == 6
    assert read_manifest(failed) is None
    teach(tmp_path)
    assert outcomes(failed) == {"scored": 2 * PAIRS}
    assert len(entries(tmp_path)) == 2 * PAIRS + 6
    manifest = read_manifest(failed)
    assert manifest is not None and manifest.results["calls"] == 2 * PAIRS + 6  # it was all paid for
    assert redo(failed, ["error"]) == 0 and read_manifest(failed) is not None


@pytest.mark.parametrize("kept", range(1, 5))
def test_killed_anywhere_it_can_be_done_again(
    failed: Path, tmp_path: Path, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink, steps = Path.unlink, [0]

    def dying(path: Path, missing_ok: bool = False) -> None:
        steps[0] += 1
        if steps[0] == kept:
            raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(Path, "unlink", dying)
        redo(failed, ["error"])
    killed = steps[0] == kept
    if killed:
        teach(tmp_path)  # a rerun in between finds the old answers, all of them
        assert sum(outcomes(failed).values()) == 2 * PAIRS and len(entries(tmp_path)) == 2 * PAIRS
        assert redo(failed, ["error"]) == 6
    teach(tmp_path)
    assert outcomes(failed) == {"scored": 2 * PAIRS} and len(entries(tmp_path)) == 2 * PAIRS + 6
    assert killed or kept > 1


def test_what_cannot_be_forgotten(failed: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"eror.*error"):
        redo(failed, ["eror"])
    with pytest.raises(ConfigError, match="not a teacher's directory"):
        redo(tmp_path, ["error"])
    journal = journals(failed / "calls")[0]
    away = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(away[:7]))
    with pytest.raises(ConfigError, match=r"of its rows are in no journal"):
        redo(failed, ["error"])
    journal.write_bytes(b"".join(away))
    claim(failed / ".shares" / "0000000-0000020", "job 7", wait_s=0.0)
    with pytest.raises(ConfigError, match="job 7 is working here"):
        redo(failed, ["error"])
    assert read_manifest(failed) is not None
