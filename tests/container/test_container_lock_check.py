from __future__ import annotations

import re
import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from components import missing

from btrm.container.cli import main
from btrm.container.lock_check import check, check_all, differences, unknown
from btrm.container.lock_index import Resolved
from btrm.container.lock_text import Pin, in_step, read, readable
from btrm.container.variants import get_lock, variants
from btrm.plugins import shipped

ZEROS, ONES = "0" * 64, "1" * 64


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the locks, to tamper with."""
    copy = tmp_path / "containers"
    shutil.copytree(shipped("containers") / "locks", copy / "locks")
    monkeypatch.setattr("btrm.container.variants.shipped", lambda _: copy)
    return copy / "locks"


@pytest.fixture
def index() -> None:
    """Skip, or fail where required, without the package index."""
    try:
        urllib.request.urlopen("https://pypi.org/simple/iniconfig/", timeout=10).close()
    except OSError as error:
        missing("index", f"no package index within reach: {error}")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uv")


def edit(path: Path, pattern: str, replacement: str | Callable[[re.Match[str]], str]) -> None:
    text, count = re.subn(pattern, replacement, path.read_text(), count=1)
    assert count == 1, f"{path}: no {pattern}"
    path.write_text(text)


def test_all_locks_are_whole_and_in_step_with_their_short_lists() -> None:
    for lock in variants().locks.values():
        assert [*readable(lock.path), *in_step(lock)] == []
        assert all(pin.hashes for pin in read(lock.path).values())


def test_a_pin_without_a_hash_is_named(locks: Path) -> None:
    edit(locks / "dev.lock", r"(iniconfig==\S+) \\\n(    --hash=.*\n)+", r"\1\n")
    assert [line for line in readable(locks / "dev.lock") if "iniconfig" in line]
    edit(locks / "cpu.lock", r"(tqdm==\S+ \\\n)(    --hash=.*\n)+", r"\1")
    assert "tqdm: no hash" in list(readable(locks / "cpu.lock"))


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://elsewhere.example/simple",
        "--extra-index-url https://elsewhere.example/simple",
        "evil @ https://elsewhere.example/evil.whl",
        "-e ./evil",
        "evil>=1.0 \\",
        "    --hash=sha256:abc",
        "    --hash=md5:0123456789abcdef0123456789abcdef",
    ],
)
def test_what_is_no_pin_is_refused(locks: Path, line: str) -> None:
    path = locks / "dev.lock"
    path.write_text(f"{path.read_text()}{line}\n")
    assert [found for found in readable(path) if line.strip() in found]


def test_a_name_that_comes_twice_is_refused(locks: Path) -> None:
    path = locks / "dev.lock"
    path.write_text(f"{path.read_text()}iniconfig==0.0.1 \\\n    --hash=sha256:{ZEROS}\n")
    assert list(readable(path)) == ["iniconfig: twice"]


def test_a_lock_that_is_not_what_its_short_list_asks_for_is_told_without_an_index(locks: Path) -> None:
    edit(locks / "cpu.lock", r"msgspec==\S+ \\\n(    --hash=.*\n)+", "")
    edit(locks / "cpu.lock", r"submitit==\S+", "submitit==1.0")
    edit(locks / "cpu.lock", r"^", f"torchvision==1 \\\n    --hash=sha256:{ZEROS}\n")
    found = list(in_step(get_lock("cpu")))
    assert [line.partition(":")[0] for line in found] == ["submitit", "msgspec", "torchvision"]
    assert "asks for 1.5.4, the lock has 1.0" in found[0] and "lacks it" in found[1] and "left out" in found[2]


def test_a_short_list_is_names_and_versions_only(locks: Path) -> None:
    (locks / "dev.in").write_text("pytest>=9\n")
    assert "neither NAME nor NAME==VERSION" in next(in_step(get_lock("dev")))


def test_a_lock_beside_another_has_its_versions(locks: Path) -> None:
    shared = sorted(read(locks / "dev.lock").keys() & read(locks / "cpu.lock").keys())[0]
    edit(locks / "dev.lock", rf"(?m)^{shared}==\S+", f"{shared}==0.0.1")
    assert f"{shared}: 0.0.1, but cpu has" in "\n".join(in_step(get_lock("dev")))


def test_whatever_differs_from_what_the_index_has_is_told() -> None:
    locked = {
        "same": Pin("1", frozenset({ZEROS, ONES})),
        "superfluous": Pin("1", frozenset({ZEROS})),
        "changed": Pin("1", frozenset({ONES})),
        "mirrored": Pin("1", frozenset({ZEROS, ONES})),
    }
    pins = {name: Pin("1", frozenset({ZEROS})) for name in ("changed", "mirrored", "lacking")}
    pins["same"] = locked["same"]
    files = {"same": {"a.whl": ZEROS}, "changed": {"b.whl": ZEROS}, "mirrored": {"c.whl": ZEROS}, "lacking": {}}
    resolved = Resolved(pins, files, frozenset({"mirrored"}))
    assert list(differences(locked, resolved)) == [
        "lacking: the set needs it (1), the lock lacks it",
        "superfluous: nothing needs it",
        f"changed: b.whl has the sha256 {ZEROS}, which the lock lacks",
        f"changed: the index has no file with the sha256 {ONES}",
    ]
    assert list(unknown(locked, resolved)) == ["1 hashes of mirrored are of files that no source within reach lists"]


def test_the_command_fails_for_a_lock_that_was_tampered_with(locks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(locks / "dev.lock", r"(?m)^pytest==\S+", "pytest==1.0")
    assert main(["lock", "--check", "dev"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("FAIL  dev.lock: pytest: ") and "-> " in out
    assert main(["lock", "--check", "nonsense"]) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("index")
@pytest.mark.parametrize(
    ("pattern", "replacement", "told"),
    [
        (r"(iniconfig==\S+ \\\n    --hash=sha256:)..", r"\g<1>00", "iniconfig: iniconfig-"),  # one hash is another
        (
            r"(iniconfig==\S+ \\\n)",
            rf"\1    --hash=sha256:{ZEROS} \\\n",
            "iniconfig: the index has no file",
        ),  # one more
        (r"iniconfig==\S+ \\\n(    --hash=.*\n)+", "", "iniconfig: the set needs it"),  # a pin is gone
        (r"iniconfig==\S+", "iniconfig==99.0", "iniconfig==99.0"),  # a version that there is not
        (r"iniconfig==\S+", "iniconfig==1.1.1", "iniconfig"),  # another version, with the hashes of the first
        (r"^", f"sampleproject==4.0.0 \\\n    --hash=sha256:{ZEROS}\n", "sampleproject: nothing needs it"),
    ],
)
def test_a_tampered_lock_is_refused_by_name(
    locks: Path, cache: Path, pattern: str, replacement: str, told: str
) -> None:
    edit(locks / "dev.lock", pattern, replacement)
    found = list(check(get_lock("dev"), cache))
    assert {line.level for line in found} == {"FAIL"}
    assert any(told in line.what for line in found), found


@pytest.mark.slow
@pytest.mark.usefixtures("index")
def test_every_lock_is_closed_consistent_and_to_be_had() -> None:
    found = list(check_all([*variants().locks.values()]))
    assert [line for line in found if line.level == "FAIL"] == []
    assert sum(line.level == "OK" for line in found) == len(variants().locks)
