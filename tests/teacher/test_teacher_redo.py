from __future__ import annotations

from collections import Counter
from contextlib import suppress
from pathlib import Path

import orjson
import pytest
from batch_stage import entries, write_toy

from btrm import stages
from btrm.cli import main as btrm
from btrm.config import ConfigError
from btrm.leases import claim
from btrm.publishing import write_json
from btrm.records import read_judgements
from btrm.runs import Resources, read_manifest
from btrm.submit import main as submit
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
    worsen(directory, "error")
    teach(tmp_path)
    assert outcomes(directory) == {"scored": 2 * PAIRS - 6, "error": 6} and len(entries(tmp_path)) == 2 * PAIRS
    return directory


def worsen(directory: Path, finish: str) -> None:
    """Let the first six answers have ended so; the result is to be made anew."""
    *_, journal = journals(directory / "calls")
    lines = [orjson.loads(line) for line in journal.read_bytes().splitlines()]
    for line in lines[:6]:
        line |= {"finish_reason": finish, "text": "no answer"}
    journal.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    for part in (directory / "parts").iterdir():
        part.unlink()
    (directory / "manifest.json").unlink()


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


def test_what_is_asked_again_is_another_request(failed: Path, tmp_path: Path) -> None:
    """The same seed would bring the same answer."""
    for times in (1, 2):
        worsen(failed, "error")
        teach(tmp_path)
        assert redo(failed, ["error"]) == 6
        teach(tmp_path)
        hashes = Counter(entry.request_hash for entry in entries(tmp_path))
        assert len(hashes) == 2 * PAIRS + 6 * times and set(hashes.values()) == {1}


@pytest.mark.parametrize("largest", [[], ["--max-tokens=4096"]], ids=["same", "larger"])
def test_answers_that_were_cut_off_get_more_room_and_the_rest_stays(
    largest: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BTRM_SITE", "local")
    write_toy(tmp_path, PAIRS)
    words = ["teacher", "--run", str(tmp_path), f"--pairs={tmp_path}/pairs.parquet", f"--n-pairs={PAIRS}"]
    directory = tmp_path / "teacher"
    assert submit(words) == 0
    worsen(directory, "length")
    assert submit(words) == 0
    assert outcomes(directory) == {"scored": 2 * PAIRS - 6, "truncated": 6}
    before = {entry.request_hash for entry in entries(tmp_path)}
    # More room alone asks nothing: what is answered stays, of a run that is complete and of one that is not.
    assert submit([*words, "--max-tokens=2048"]) == 0 and len(entries(tmp_path)) == 2 * PAIRS
    manifest = read_manifest(directory)
    assert manifest is not None and manifest.config["max_tokens"] == 2048
    capsys.readouterr()
    assert btrm(["redo", str(directory), "--outcomes", "truncated"]) == 0
    said = capsys.readouterr().out
    assert "6 answers are forgotten" in said and "--max-tokens=2048" in said and "a larger --max-tokens" in said
    assert submit([*words, *largest]) == 0
    assert outcomes(directory) == {"scored": 2 * PAIRS} and len(entries(tmp_path)) == 2 * PAIRS + 6
    again = {entry.request_hash for entry in entries(tmp_path)} - before
    assert len(again) == 6
    assert btrm(["redo", str(directory), "--outcomes", "truncated"]) == 0
    assert capsys.readouterr().out.endswith("0 answers are forgotten\n")


def test_malformed_is_unparsed(tmp_path: Path) -> None:
    write_toy(tmp_path, PAIRS)
    directory = teach(tmp_path)
    worsen(directory, "stop")
    teach(tmp_path)
    assert outcomes(directory)["unparsed"] == 6 == redo(directory, ["malformed"])


def test_good_answers_are_forgotten_by_no_slip(failed: Path) -> None:
    for slip in ("score", "scord", "Scored", "malformd", "all"):
        with pytest.raises(ConfigError, match=f"no such outcome as {slip}") as told:
            redo(failed, [slip])
        assert "scored" not in str(told.value).replace(slip, "")
    assert redo(failed, ["scored"]) == 2 * PAIRS - 6


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
