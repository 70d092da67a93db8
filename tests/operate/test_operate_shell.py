from __future__ import annotations

import hashlib
import shlex
from pathlib import Path

import pytest

from btrm.cli import main
from btrm.config import ConfigError
from btrm.launch.site import Container, Site
from btrm.operate.shell import shell_command
from btrm.runs import Resources, user_cache

NEED = Resources(nodes=1, gpus=2, cpus=4, mem_gb=16, time_min=30)


def test_the_command_asks_as_jobs_do() -> None:
    site = Site(
        name="x", executor="slurm", partition="gpu", gpu_request="gres", gpu_type="h100", slurm={"reservation": "night"}
    )
    words = shell_command(site, NEED)
    assert words[0] == "srun" and words[-2:] == ["--pty", "bash"]
    assert {"--gres=gpu:h100:2", "--partition=gpu", "--time=30", "--mem=16G", "--reservation=night"} <= set(words)
    assert not any("gpus-per-node" in word for word in words)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file in the place of an image, and a cache of the hub."""
    (tmp_path / "hub").mkdir()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    (tmp_path / "x.sif").write_bytes(b"image")
    return str(tmp_path / "x.sif")


def assert_as_jobs(text: str, tmp_path: Path, file: str) -> None:
    sha256 = hashlib.sha256(b"image").hexdigest()
    caches = f"XDG_CACHE_HOME={user_cache()}/container/.cache"
    for value in (f"HF_HOME={tmp_path}/hub", f"BTRM_IMAGE={file}", f"BTRM_IMAGE_SHA256={sha256}", caches):
        assert f"export {value};" in text


def test_the_shell_is_in_the_image_after_the_sites_setup(tmp_path: Path, file: str) -> None:
    image = Container(image=file, binds=("/scratch",))
    site = Site(name="x", executor="slurm", container=image, setup=("module load apptainer",), env={"A": "b c"})
    inside = shlex.split(shell_command(site, NEED)[-1])
    assert inside[:4] == ["module", "load", "apptainer;", "unset"]
    assert inside[inside.index("A=b c;") - 1 :][:4] == ["export", "A=b c;", "exec", "apptainer"]
    assert inside[-2:] == [file, "bash"] and {str(tmp_path), f"{tmp_path}/hub", "/scratch"} <= set(inside)
    assert_as_jobs(shell_command(site, NEED)[-1], tmp_path, file)


def test_another_image_than_the_sites_gets_no_shell(file: str) -> None:
    site = Site(name="x", executor="slurm", container=Container(image=file, sha256="0" * 64))
    with pytest.raises(ConfigError, match="another image, or a new pin"):
        shell_command(site, NEED)


def test_with_pyxis_srun_itself_enters_the_image(tmp_path: Path, file: str) -> None:
    image = Container(runtime="pyxis", image=file, binds=("/scratch:/s:ro",), args=("--container-writable",))
    site = Site(name="x", executor="slurm", container=image, setup=("module load pyxis",), env={"A": "b c"})
    words = shell_command(site, NEED)
    own = words[words.index(f"--container-image={file}") : words.index("--pty")]
    (mounts,) = (word for word in own if word.startswith("--container-mounts="))
    assert mounts.startswith("--container-mounts=/scratch:/s:ro,") and mounts.endswith(f",{tmp_path}:{tmp_path}")
    assert f",{tmp_path}/hub:{tmp_path}/hub," in mounts and own[-1] == "--container-writable"
    assert f"--container-workdir={tmp_path}" in own and "--no-container-mount-home" in own
    inside = words[-1]
    assert words[-3:-1] == ["bash", "-c"] and inside.endswith("export A='b c'; exec bash") and "module" not in inside
    assert_as_jobs(inside, tmp_path, file)


def test_printing_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shell", "--site", "onebox", "--gpus", "1", "--print"]) == 0
    assert capsys.readouterr().out.startswith("srun --job-name=btrm-shell ")
    assert main(["shell", "--site", "local", "--print"]) == 2
    assert "no cluster" in capsys.readouterr().err
