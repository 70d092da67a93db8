from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from btrm.config import ConfigError
from btrm.container.cli import main
from btrm.container.run import container_site, image_site, inside
from btrm.launch.sbatch import bound, job_environment
from btrm.launch.submission import Plan
from btrm.publishing import write_json
from btrm.runs import user_cache

CONTAINER = [sys.executable, "-m", "btrm.cli", "container"]


def site_file(folder: Path, image: Path, more: str = "") -> Path:
    path = folder / "here.toml"
    (folder / "bound").mkdir(exist_ok=True)
    path.write_text(
        f'executor = "slurm"\nsetup = ["export FROM_SETUP=1"]\n{more}\n[env]\nFROM_SITE = "a b"\n'
        f'[container]\nimage = "{image}"\nbinds = ["{folder}/bound:/bound:ro"]\n'
    )
    return path


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A file in the place of an image, where none is run."""
    (tmp_path / "image.sif").write_bytes(b"an image")
    return tmp_path / "image.sif"


def test_a_site_gives_its_set_up_variables_binds_and_caches_as_jobs_have_them(stand_in: Path, tmp_path: Path) -> None:
    site = container_site(str(site_file(tmp_path, stand_in)))
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    text = str(inside(site, ["python", "-c", "print('hi')"], run))
    plan = Plan(root=str(run), steps=(), env=site.env)
    for name in job_environment(site, plan):
        assert f"export {name}=" in text
    for place in bound(plan):
        assert f"--bind {place}" in text
    assert text.startswith("export FROM_SETUP=1\n") and "export FROM_SITE='a b'\n" in text
    assert f"--bind {tmp_path}/bound:/bound:ro" in text
    assert f"export XDG_CACHE_HOME={run}/.cache" in text
    assert f"--pwd {Path.cwd()}" in text
    assert text.splitlines()[-1].endswith(f"{stand_in} python -c 'print('\"'\"'hi'\"'\"')'")


def test_without_a_run_caches_are_the_users(stand_in: Path) -> None:
    inside(image_site(stand_in), ["true"], None)
    assert (user_cache() / "container").is_dir()


def test_the_hosts_python_does_not_come_along(stand_in: Path) -> None:
    lines = str(inside(image_site(stand_in), ["true"], None)).splitlines()
    assert {"PYTHONHOME", "VIRTUAL_ENV", "LD_PRELOAD"} <= set(lines[0].removeprefix("unset ").split())


def test_another_image_than_the_site_pins_is_not_entered(stand_in: Path, tmp_path: Path) -> None:
    path = site_file(tmp_path, stand_in)
    path.write_text(f'{path.read_text()}sha256 = "{"0" * 64}"\n')
    with pytest.raises(ConfigError, match="another image"):
        inside(container_site(str(path)), ["true"], None)
    stand_in.unlink()
    with pytest.raises(ConfigError, match="no such file"):
        inside(container_site(str(path)), ["true"], None)


def test_a_runs_own_code_is_bound_over_the_images(stand_in: Path, tmp_path: Path) -> None:
    plan = {"root": str(tmp_path), "steps": (), "env": {}, "code": f"{tmp_path}/.code/abc", "code_digest": "abc"}
    write_json(tmp_path / ".jobs" / "20300101-000000-x" / "plan.json", plan)
    text = str(inside(image_site(stand_in), ["true"], tmp_path))
    assert f"export APPTAINERENV_PYTHONPATH={tmp_path}/.code/abc\n" in text
    assert f"--bind {tmp_path}/.code/abc " in text


def test_nv_follows_the_driver_for_an_image_and_the_site_for_a_site(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = tmp_path / "version"
    monkeypatch.setattr("btrm.container.run._DRIVER", driver)
    assert "--nv" not in inside(image_site(stand_in), ["true"], None).command
    driver.touch()
    assert "--nv" in inside(image_site(stand_in), ["true"], None).command
    driver.unlink()
    assert "--nv" in inside(container_site(str(site_file(tmp_path, stand_in))), ["true"], None).command


def test_what_cannot_be_asked_is_told(tmp_path: Path, stand_in: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exec", str(tmp_path / "none.sif"), "true"]) == 2
    assert main(["exec", "--site", "local", "true"]) == 2
    assert main(["exec", str(stand_in)]) == 2
    assert main(["exec", "--run", str(tmp_path / "none"), str(stand_in), "true"]) == 2
    assert main(["shell", "--site", "local", str(stand_in)]) == 2
    err = capsys.readouterr().err
    for part in ("no such image", "has no [container]", "which command?", "no such folder", "one of the two"):
        assert part in err
    with pytest.raises(ConfigError, match=r"no \[container\]"):
        container_site("local")


def test_print_only_prints(stand_in: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exec", "--print", str(stand_in), "--", "python", "-m", "x", "--print"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1].endswith("python -m x --print") and said.err == ""


@pytest.mark.slow
def test_the_command_sees_its_folder_and_keeps_its_exit_code(tiny_image: Path, tmp_path: Path) -> None:
    here = tmp_path / "work"
    here.mkdir()
    (here / "note").write_text("from outside")
    script = 'cat note; echo "$FROM_SITE $PWD" > answer; exit 7'
    site = site_file(tmp_path, tiny_image)
    words = [*CONTAINER, "exec", "--site", str(site), "sh", "-c", script]
    done = subprocess.run(words, cwd=here, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (7, "from outside")
    assert (here / "answer").read_text() == f"a b {here}\n"
    assert "FATAL" not in done.stderr and "WARNING" not in done.stderr


@pytest.mark.slow
def test_what_is_printed_does_the_same_when_it_is_copied(tiny_image: Path) -> None:
    words = ["exec", str(tiny_image), "env"]
    first = subprocess.run([*CONTAINER, *words], capture_output=True, text=True, check=True)
    again = subprocess.run(["bash"], input=first.stderr, capture_output=True, text=True, check=True)
    assert _values(again.stdout) == _values(first.stdout)
    assert f"XDG_CACHE_HOME={user_cache()}/container/.cache" in first.stdout


def _values(env: str) -> set[str]:
    return {line for line in env.splitlines() if not line.startswith(("_=", "SHLVL=", "OLDPWD="))}


def test_the_process_becomes_the_command_and_gets_its_signals(stand_in: Path, tmp_path: Path) -> None:
    apptainer = tmp_path / "bin" / "apptainer"
    apptainer.parent.mkdir()
    apptainer.write_text("#!/bin/sh\ntrap 'exit 9' TERM\necho $$\nwhile :; do sleep 0.05; done\n")
    apptainer.chmod(0o755)
    env = os.environ | {"PATH": f"{apptainer.parent}:{os.environ['PATH']}"}
    words = [*CONTAINER, "exec", str(stand_in), "true"]
    process = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None and int(process.stdout.readline()) == process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 9
    finally:
        process.kill()


@pytest.mark.slow
def test_the_image_in_a_runs_manifest_is_the_one_that_the_shell_is_in(tiny_image: Path) -> None:
    from btrm.runs import IMAGE_SHA256, sha256_file

    words = [*CONTAINER, "exec", str(tiny_image), "env"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert f"{IMAGE_SHA256}={sha256_file(tiny_image)}" in done.stdout.splitlines()


@pytest.mark.slow
def test_a_shell_without_bash_is_sh(tiny_image: Path) -> None:
    done = subprocess.run(
        [*CONTAINER, "shell", str(tiny_image)], input="echo $0 $((1+1))\n", capture_output=True, text=True
    )
    assert done.stdout.split() == ["sh", "2"]
