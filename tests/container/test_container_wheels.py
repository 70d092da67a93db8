"""A folder of wheels: what of a lock is in it, and what pip is asked for."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from btrm.container.lock import pins
from btrm.container.variants import Lock, get_lock
from btrm.container.wheels import entries, fill, missing
from btrm.runs import StageError

LOCK = Lock(name="small", python="3.12")


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lock:
    """A lock of two packages, whose files lie in a folder that stands in for an index."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    made = "".join(_package(tmp_path, index, name) for name in ("alpha", "beta"))
    (tmp_path / "small.lock").write_text(f"# by hand\n{made}")
    monkeypatch.setattr(Lock, "path", property(lambda _: tmp_path / "small.lock"))
    return LOCK


def _package(folder: Path, index: Path, name: str) -> str:
    source = folder / name
    source.mkdir()
    (source / "pyproject.toml").write_text(
        f'[project]\nname = "{name}"\nversion = "1.0"\n[build-system]\nrequires = []\nbuild-backend = "backend"\n'
        'backend-path = ["."]\n'
    )
    (source / "backend.py").write_text(
        "import zipfile, pathlib\n"
        "def build_wheel(folder, settings=None, metadata=None):\n"
        f"    name = '{name}-1.0-py3-none-any.whl'\n"
        "    with zipfile.ZipFile(pathlib.Path(folder) / name, 'w') as file:\n"
        f"        info = '{name}-1.0.dist-info'\n"
        f"        file.writestr(info + '/METADATA', 'Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n')\n"
        "        file.writestr(info + '/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n"
        "        file.writestr(info + '/RECORD', '')\n"
        "    return name\n"
    )
    words = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(index)]
    subprocess.run([*words, str(source)], check=True, capture_output=True)
    digest = hashlib.sha256((index / f"{name}-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    return f"{name}==1.0 \\\n    --hash=sha256:{digest}\n"


@pytest.mark.slow
def test_a_folder_is_filled_once(lock: Lock, tmp_path: Path) -> None:
    folder = tmp_path / "wheels"
    assert missing(lock, folder) == ["alpha", "beta"]
    assert fill(lock, folder) == ["alpha", "beta"]
    assert sorted(path.name for path in folder.iterdir()) == ["alpha-1.0-py3-none-any.whl", "beta-1.0-py3-none-any.whl"]
    assert fill(lock, folder) == []
    next(folder.glob("alpha*")).write_bytes(b"torn")
    assert fill(lock, folder) == ["alpha"], "a torn file is fetched again"
    assert missing(lock, folder) == []


@pytest.mark.slow
def test_a_file_with_another_hash_is_refused(lock: Lock, tmp_path: Path) -> None:
    lock.path.write_text(lock.path.read_text().replace("sha256:", "sha256:0000", 1)[:-1] + "\n")
    text = lock.path.read_text().splitlines()
    text[2] = text[2][: len("    --hash=sha256:") + 64]
    lock.path.write_text("\n".join(text) + "\n")
    with pytest.raises(StageError, match="DO NOT MATCH THE HASHES"):
        fill(lock, tmp_path / "wheels")


@pytest.mark.parametrize("name", ["cpu", "cu13", "cu12", "dev"])
def test_every_pin_of_a_lock_has_hashes(name: str) -> None:
    lock = get_lock(name)
    found = dict(entries(lock.path))
    assert found.keys() == pins(lock.path).keys()
    assert not [package for package, text in found.items() if "--hash=sha256:" not in text]
    assert not set(lock.leave_out) & set(found)
