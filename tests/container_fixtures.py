"""Fixtures that need Apptainer: a tiny real image, two signers, and a real registry."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Generator
from pathlib import Path

import pytest
import tiny
from components import missing


@pytest.fixture(scope="session")
def need_apptainer() -> Generator[None]:
    """Skip, or fail where required, without Apptainer on PATH or with the tools beside the checkout."""
    beside = Path(__file__).parent.parent.parent / "shared" / "tools" / "apptainer"
    with pytest.MonkeyPatch.context() as patch:
        if shutil.which("apptainer") is None:
            patch.setenv("PATH", str(beside), prepend=os.pathsep)
        if shutil.which("apptainer") is None:
            missing("apptainer", "apptainer is not on PATH")
        # Its first call may set it up, which takes a while and says so.
        done = subprocess.run(["apptainer", "--version"], capture_output=True, text=True, check=False)
        if done.returncode:
            missing("apptainer", f"apptainer does not work: {done.stderr.strip()}")
        yield


@pytest.fixture(scope="session")
def tiny_image(request: pytest.FixtureRequest) -> Generator[Path]:
    """An image to copy from: `tiny.copy(tiny_image, tmp_path)`."""
    request.getfixturevalue("need_apptainer")
    linked = subprocess.run(["ldd", str(tiny.BUSYBOX)], capture_output=True, check=False)
    if not tiny.BUSYBOX.exists() or linked.returncode == 0:  # a dynamic one would miss its libraries in the image
        missing("apptainer", "busybox-static is not installed")
    # Apptainer may build as another user, who cannot look into pytest's own folders.
    folder = Path(tempfile.mkdtemp(prefix="btrm-tiny-"))
    folder.chmod(0o755)
    yield tiny.build(folder / "tiny", tiny.own_record())
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def keyrings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """{who: keyring's folder}: ours, theirs; each holds one key without a passphrase."""
    request.getfixturevalue("need_apptainer")
    return {who: _keyring(tmp_path_factory.mktemp(who), who) for who in ("ours", "theirs")}


def _keyring(folder: Path, who: str) -> Path:
    folder.chmod(0o700)
    words = ["apptainer", "key", "newpair", "--name", who, "--email", f"{who}@example.org", "--comment", "test"]
    words += ["--password", "", "--push=false", "--bit-length", "2048"]
    subprocess.run(words, env=os.environ | {"APPTAINER_KEYSDIR": str(folder)}, check=True, capture_output=True)
    return folder


def fingerprint(keyring: Path) -> str:
    """Return the fingerprint of a keyring's only key."""
    env = os.environ | {"APPTAINER_KEYSDIR": str(keyring)}
    listed = subprocess.run(["apptainer", "key", "list"], env=env, check=True, capture_output=True, text=True).stdout
    return next(line.split(":")[1].strip() for line in listed.splitlines() if "Fingerprint" in line)


@pytest.fixture
def registry(tmp_path: Path) -> Generator[tuple[str, Path]]:
    """Start a real registry; return its address and the folder where it keeps what it is given."""
    if shutil.which("docker-registry") is None:
        missing("registry", "docker-registry is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    store = tmp_path / "store"
    config = tmp_path / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '{address}'}}\n"
        f"storage: {{filesystem: {{rootdirectory: '{store}'}}}}\n"
    )
    with (tmp_path / "registry.log").open("w") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=log, stderr=log)
    try:
        _wait(f"http://{address}/v2/")
        yield address, store
    finally:
        process.terminate()
        process.wait()


def _wait(url: str) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < end, f"{url}: no answer"
            time.sleep(0.05)
