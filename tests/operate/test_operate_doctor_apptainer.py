"""`btrm doctor` on an image that Apptainer really starts: tiny, with this machine's own Python bound into it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from btrm.cli import main
from btrm.onebox.box import OneBox

pytestmark = pytest.mark.slow
# Where Apptainer has a root of its own, its /usr is another one than this machine's: no bind to be compared.
LIBRARIES = [w for p in ("/usr", "/lib", "/lib64") if Path(p).exists() for w in ("--bind", p)]
PYTHON = [place for place in dict.fromkeys([sys.prefix, sys.base_prefix]) if not f"{place}/".startswith("/usr/")]
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "TMPDIR", "CC", "CXX")
# Tests run in a folder of /tmp, which an image sees unless it is told not to.
WITHOUT_TMP = ["--no-mount", "tmp"]


@pytest.fixture
def site(tiny_image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`site(image, env, args, …)` writes a site's file, with what else is in [container], and returns its path."""
    for name in ("PYTHONPATH", "HF_HOME", "XDG_CACHE_HOME", "LD_LIBRARY_PATH", *CERTIFICATES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")

    def write(
        image: Path = tiny_image, env: Mapping[str, str] = {}, args: Sequence[str] | None = (), **more: object
    ) -> str:
        usual = {"image": str(image), "binds": PYTHON, "python": sys.executable, "nv": False}
        tables = {"container": {**usual, "args": [] if args is None else [*LIBRARIES, *args], **more}, "env": env}
        lines = ['executor = "slurm"', 'partition = "low"', "offline = true"]
        for name, table in tables.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
        path = tmp_path / "boxed.toml"
        path.write_text("\n".join(lines))
        return str(path)

    return write


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that starts slowly on a busy machine is no fault of it."""
    monkeypatch.setattr("btrm.operate.doctor_image_start._SLOW_S", 300.0)


def doctor(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """Return the lines on the image: what follows what is said of this machine, or of the node."""
    main(["doctor", *words])
    lines = capsys.readouterr().out.splitlines()
    return lines[next(n for n, line in enumerate(lines) if " image " in line) :]


def faults(lines: list[str]) -> list[str]:
    return [line for line in lines if not line.startswith("OK")]


def test_a_sound_image_is_told_sound(site: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    lines = doctor(capsys, "--site", site())
    text = "\n".join(lines)
    assert not [line for line in lines if line.startswith("FAIL")], text
    for part in (
        "OK    here: apptainer 1.",
        "OK    here: the image starts in ",
        "OK    image here: cpu, lock ",
        "OK    image here: the run, the working directory, the code, bind ",
        "MODELSCOPE_CACHE, TRITON_CACHE_DIR, TORCHINDUCTOR_CACHE_DIR, VLLM_CACHE_ROOT are writable (HOME /",
        "OK    image here: /tmp is that outside",
        "OK    image here: /dev/shm is that outside",
    ):
        assert part in text
    assert "with this code" in text
    assert not Path("runs").exists()


def test_an_image_alone_says_what_it_lacks(tiny_image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = faults(doctor(capsys, "--image", str(tiny_image)))
    assert line.startswith("FAIL  image here: no answer (exit 255): python is not in the image")


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"binds": [*PYTHON, "/no/such/place"]}, "FAIL  here: the image does not start: /no/such/place is to be bound"),
        ({"binds": []}, f"FAIL  image here: no answer (exit 255): {sys.executable} is not in the image"),
        (
            {"args": [*WITHOUT_TMP, "--env", "PYTHONPATH=/host/site"]},
            "FAIL  image here: no answer (exit 1): its Python does not look",
        ),
        ({"args": ["--env", "PYTHONHOME=/host"]}, "FAIL  image here: no answer (exit 1): PYTHONHOME names another"),
        ({"args": ["--env", "LD_PRELOAD=/host/x.so"]}, "FAIL  image here: LD_PRELOAD=/host/x.so, which is not there"),
        ({"args": ["--env", "CC=/apps/gcc"]}, "WARN  image here: CC=/apps/gcc is not in it, which breaks what triton"),
        ({"args": ["--no-such-flag"]}, "FAIL  here: the image does not start: this runtime does not know --no-such"),
        ({"env": {"HF_HOME": "/opt/hf"}}, "FAIL  image here: HF_HOME=/opt/hf: Read-only file system"),
        (
            {"env": {"HF_HOME": "/opt/hf"}, "args": ["--writable-tmpfs"]},
            "WARN  image here: HF_HOME=/opt/hf is not the one outside: it ends with the image",
        ),
        ({"args": ["--contain"]}, "WARN  image here: /tmp is one of its own, in memory"),
        ({"sha256": "0" * 64}, "FAIL  image {image}: sha256 "),
    ],
)
def test_what_is_wrong_is_told_with_its_fix(
    site: Callable[..., str],
    tiny_image: Path,
    capsys: pytest.CaptureFixture[str],
    values: dict[str, object],
    fault: str,
) -> None:
    found = faults(doctor(capsys, "--site", site(**values)))
    (line,) = [line for line in found if line.startswith(fault.format(image=tiny_image))]
    assert "  -> " in line
    assert line.startswith("WARN") or len([f for f in found if f.startswith("FAIL")]) == 1, found


def test_a_file_that_is_no_image_is_told(
    site: Callable[..., str], tiny_image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in {"text.sif": b"hello", "half.sif": tiny_image.read_bytes()[:700_000]}.items():
        (tmp_path / name).write_bytes(content)
        (line,) = faults(doctor(capsys, "--site", site(tmp_path / name)))
        assert line.startswith("FAIL  here: the image does not start: the file is no image, or half of one (FATAL")


def test_a_host_full_of_modules_does_not_leak_in(
    site: Callable[..., str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PYTHONPATH", "PYTHONUSERBASE", "LD_PRELOAD", "CONDA_PREFIX", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, "/apps/none")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/apps/cuda/lib64")
    monkeypatch.setenv("CUDA_HOME", "/apps/cuda")
    (line,) = [line for line in faults(doctor(capsys, "--site", site())) if "/apps/" in line]
    assert line.startswith("WARN  image here: CUDA_HOME=/apps/cuda is not in it"), "jobs unset the others"


def test_a_node_answers_from_inside_of_the_image(
    slurm: Callable[..., OneBox], site: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm(nodes=1, gpus=1)
    (tmp_path / "own").mkdir()
    path = site(binds=[*PYTHON, f"{tmp_path}/own:/mnt"], args=WITHOUT_TMP)
    lines = doctor(capsys, "--site", path, "--on-node", "--gpus", "1")
    text = "\n".join(lines)
    assert not [line for line in lines if line.startswith("FAIL")], text
    assert "OK    node: image " in text and "OK    node: the image starts in " in text
    assert f"bind {tmp_path}/own:/mnt as outside" in text and "image: /tmp is " in text
    assert "WARN  node: no NVIDIA driver; the image has no CUDA either" in text
    assert not [line for line in lines if " node: " in line and "ms-swift" in line], "stages run in the image"
    assert not (tmp_path / "runs").exists()


def test_srun_itself_starts_the_image_where_pyxis_is(
    slurm: Callable[..., OneBox], site: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm(nodes=1)
    plugin = Path(__file__).parent.parent / "launch/stand_in_pyxis.py"
    (tmp_path / "pyxis.py").write_text(plugin.read_text().replace("@srun@", shutil.which("srun") or ""))
    (tmp_path / "bin").mkdir()
    srun = (
        f'case "$*" in *--help*) echo "--container-image=IMAGE"; exit;; esac\nexec {sys.executable} {tmp_path}/pyxis.py'
    )
    (tmp_path / "bin/srun").write_text(f'#!/bin/sh\n{srun} "$@"\n')
    (tmp_path / "bin/srun").chmod(0o755)
    binds = [*LIBRARIES[1::2], *PYTHON]
    path = Path(site(runtime="pyxis", binds=binds, args=None))
    assert "FAIL  here: srun has no --container-image" in "\n".join(doctor(capsys, "--site", str(path)))
    path.write_text(f'setup = ["export PATH={tmp_path}/bin:$PATH"]\n{path.read_text()}')
    text = "\n".join(doctor(capsys, "--site", str(path), "--on-node"))
    assert "OK    node: srun has --container-image (pyxis)" in text and "OK    node: the image starts in " in text
    assert "OK    image: cpu, lock " in text and "OK    image: the run, the working directory, the code" in text
