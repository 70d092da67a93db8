from __future__ import annotations

import hashlib
import re
import shutil
import threading
import urllib.request
import zipfile
from collections.abc import Callable, Generator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from components import missing

from btrm.container.cli import main
from btrm.container.lock import write_lock
from btrm.container.lock_check import check, check_all, differences, unknown
from btrm.container.lock_index import Resolved
from btrm.container.lock_text import Pin, in_step, read, readable
from btrm.container.variants import Lock, get_lock, variants
from btrm.plugins import shipped

ZEROS, ONES = "0" * 64, "1" * 64


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the locks, to tamper with."""
    copy = tmp_path / "containers"
    shutil.copytree(shipped("containers") / "locks", copy / "locks")
    shutil.copy(shipped("containers") / "variants.toml", copy)
    monkeypatch.setattr("btrm.container.variants.shipped", lambda _: copy)
    return copy / "locks"


@pytest.fixture
def index() -> None:
    """Skip, or fail where required, without the package index."""
    try:
        urllib.request.urlopen("https://pypi.org/simple/iniconfig/", timeout=60).close()
    except OSError as error:
        missing("index", f"no package index within reach: {error}")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uv")


def edit(path: Path, pattern: str, replacement: str | Callable[[re.Match[str]], str]) -> None:
    text, count = re.subn(pattern, replacement, path.read_text(), count=1)
    assert count == 1, f"{path}: no {pattern}"
    path.write_text(text)


def put_wheel(index: Path, name: str, version: str, needs: str = "") -> None:
    """Put a wheel with nothing in it into an index."""
    folder, stem = index / name, f"{name}-{version}"
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        meta = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        file.writestr(f"{stem}.dist-info/METADATA", meta + (f"Requires-Dist: {needs}\n" if needs else ""))
        file.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{stem}.dist-info/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (folder / "index.html").write_text(f'<a href="{wheel.name.replace("+", "%2B")}#sha256={digest}">{wheel.name}</a>')


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def two_indices(locks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Lock]:
    """The cpu lock, of torch and what that needs, made from a default index and one for torch that has more."""
    root = tmp_path / "indices"
    put_wheel(root / "pypi", "six", "1.0")
    put_wheel(root / "torch", "six", "99.0")
    put_wheel(root / "torch", "torch", "1.0+cpu", needs="six")
    (locks / "cpu.in").write_text("torch==1.0+cpu\n")
    (locks / "cpu.lock").unlink()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    told = {"UV_DEFAULT_INDEX": f"{address}/pypi", "UV_FIND_LINKS": "", "UV_CACHE_DIR": str(tmp_path / "uv-cache")}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    lock = get_lock("cpu").model_copy(update={"torch_index": f"{address}/torch"})
    try:
        write_lock(lock, upgrade=False)
        yield lock
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


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
        "torch": Pin("1", frozenset({ZEROS, ONES})),
    }
    pins = {name: Pin("1", frozenset({ZEROS})) for name in ("changed", "torch", "lacking")}
    pins["same"] = locked["same"]
    files = {"same": {"a.whl": ZEROS}, "changed": {"b.whl": ZEROS}, "torch": {"c.whl": ZEROS}, "lacking": {}}
    resolved = Resolved(pins, files, frozenset({"torch"}))
    assert list(differences(locked, resolved)) == [
        "lacking: the set needs it (1), the lock lacks it",
        "superfluous: nothing needs it",
        f"changed: b.whl has the sha256 {ZEROS}, which the lock lacks",
        f"changed: no index has a file with the sha256 {ONES}",
    ]
    assert list(unknown(locked, resolved)) == ["1 hashes of torch could not be looked at"]


def test_the_command_fails_for_a_lock_that_was_tampered_with(locks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(locks / "dev.lock", r"(?m)^pytest==\S+", "pytest==1.0")
    assert main(["lock", "--check", "dev"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("FAIL  dev.lock: pytest: ") and "-> " in out
    assert main(["lock", "--check", "nonsense"]) == 2


def test_nothing_but_torch_comes_from_the_index_of_torch(two_indices: Lock) -> None:
    assert {name: pin.version for name, pin in read(two_indices.path).items()} == {"torch": "1.0+cpu", "six": "1.0"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["six", "torch"])
def test_a_hash_that_nobody_lists_is_refused_though_the_index_is_a_mirror(
    two_indices: Lock, tmp_path: Path, name: str
) -> None:
    assert {line.level for line in check(two_indices, tmp_path / "uv")} == {"OK"}
    whole = two_indices.path.read_text()
    edit(two_indices.path, rf"({name}==\S+ \\\n)", rf"\1    --hash=sha256:{ZEROS} \\\n")
    found = list(check(two_indices, tmp_path / "uv"))
    assert [(line.level, line.what) for line in found] == [
        ("FAIL", f"cpu.lock: {name}: no index has a file with the sha256 {ZEROS}")
    ]
    write_lock(two_indices, upgrade=False)  # as the check advises
    assert two_indices.path.read_text() == whole


@pytest.mark.slow
def test_without_the_index_of_torch_only_torch_is_in_doubt(two_indices: Lock, tmp_path: Path) -> None:
    links = str(tmp_path / "indices" / "torch" / "torch")
    lock = two_indices.model_copy(update={"torch_index": f"{two_indices.torch_index}/nowhere"})
    edit(lock.path, r"(torch==\S+ \\\n)    --hash=.*\n", rf"\1    --hash=sha256:{ZEROS}\n")
    fails = [line.what for line in check(lock, tmp_path / "uv", [links]) if line.level == "FAIL"]
    assert len(fails) == 1 and "which the lock lacks" in fails[0]  # what is to be had of torch is still looked at
    write_lock(two_indices, upgrade=False)
    edit(lock.path, r"(torch==\S+ \\\n)", rf"\1    --hash=sha256:{ZEROS} \\\n")
    found = list(check(lock, tmp_path / "uv", [links]))
    assert [line.level for line in found] == ["WARN", "OK"] and "1 hashes of torch" in found[0].what
    edit(lock.path, r"(six==\S+ \\\n)", rf"\1    --hash=sha256:{ZEROS} \\\n")
    found = list(check(lock, tmp_path / "uv", [links]))
    assert [line.what for line in found if line.level == "FAIL"] == [
        f"cpu.lock: six: no index has a file with the sha256 {ZEROS}"
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("index")
@pytest.mark.parametrize(
    ("pattern", "replacement", "told"),
    [
        (r"(iniconfig==\S+ \\\n    --hash=sha256:)..", r"\g<1>00", "iniconfig: iniconfig-"),  # one hash is another
        (
            r"(iniconfig==\S+ \\\n)",
            rf"\1    --hash=sha256:{ZEROS} \\\n",
            "iniconfig: no index has a file",
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
def test_a_foreign_hash_in_the_cpu_lock_is_refused_by_a_mirror_too(
    locks: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://pypi.org/simple")
    edit(locks / "cpu.lock", r"(?m)^(numpy==\S+ \\\n)", rf"\1    --hash=sha256:{ZEROS} \\\n")
    fails = [line.what for line in check(get_lock("cpu"), cache) if line.level == "FAIL"]
    assert fails == [f"cpu.lock: numpy: no index has a file with the sha256 {ZEROS}"]


@pytest.mark.slow
@pytest.mark.usefixtures("index")
def test_every_lock_is_closed_consistent_and_to_be_had() -> None:
    found = list(check_all([*variants().locks.values()]))
    assert [line for line in found if line.level == "FAIL"] == []
    assert sum(line.level == "OK" for line in found) == len(variants().locks)
