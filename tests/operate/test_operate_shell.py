from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from btrm.cli import main
from btrm.launch.site import Container, Site
from btrm.operate.shell import shell_command
from btrm.runs import Resources

NEED = Resources(nodes=1, gpus=2, cpus=4, mem_gb=16, time_min=30)


def test_the_command_asks_as_jobs_do() -> None:
    site = Site(
        name="x", executor="slurm", partition="gpu", gpu_request="gres", gpu_type="h100", slurm={"reservation": "night"}
    )
    words = shell_command(site, NEED)
    assert words[0] == "srun" and words[-2:] == ["--pty", "bash"]
    assert {"--gres=gpu:h100:2", "--partition=gpu", "--time=30", "--mem=16G", "--reservation=night"} <= set(words)
    assert not any("gpus-per-node" in word for word in words)


def test_the_shell_is_in_the_image_after_the_sites_setup(tmp_path: Path) -> None:
    image = Container(image="/images/x.sif", binds=("/scratch",))
    site = Site(name="x", executor="slurm", container=image, setup=("module load apptainer",), env={"A": "b c"})
    inside = shlex.split(shell_command(site, NEED)[-1])
    assert inside[:4] == ["module", "load", "apptainer;", "unset"]
    assert inside[inside.index("export") :][:4] == ["export", "A=b c;", "exec", "apptainer"]
    assert inside[-2:] == ["/images/x.sif", "bash"] and str(tmp_path) in inside and "/scratch" in inside


def test_with_pyxis_srun_itself_enters_the_image(tmp_path: Path) -> None:
    image = Container(
        runtime="pyxis", image="/images/x.sqsh", binds=("/scratch:/s:ro",), args=("--container-writable",)
    )
    site = Site(name="x", executor="slurm", container=image, setup=("module load pyxis",), env={"A": "b c"})
    words = shell_command(site, NEED)
    own = words[words.index("--container-image=/images/x.sqsh") : words.index("--pty")]
    assert f"--container-mounts=/scratch:/s:ro,{tmp_path}:{tmp_path}" in own and own[-1] == "--container-writable"
    assert f"--container-workdir={tmp_path}" in own and "--no-container-mount-home" in own
    inside = words[-1]
    assert words[-3:-1] == ["bash", "-c"] and inside.endswith("export A='b c'; exec bash") and "module" not in inside


def test_printing_runs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shell", "--site", "onebox", "--gpus", "1", "--print"]) == 0
    assert capsys.readouterr().out.startswith("srun --job-name=btrm-shell ")
    assert main(["shell", "--site", "local", "--print"]) == 2
    assert "no cluster" in capsys.readouterr().err
