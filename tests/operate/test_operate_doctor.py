from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from btrm.checks import Check
from btrm.cli import main
from btrm.launch.site import Site
from btrm.onebox.box import OneBox
from btrm.operate.doctor_check import adapted_swift, disk_checks, path_checks, python_checks
from btrm.operate.doctor_compare import Answer, compare
from btrm.operate.doctor_node import Facts, PathFact, Question, take

# Stands in for an image whose Python is this one: what the host's variables would have brought along is dropped.
APPTAINER = f"""#!/bin/sh
[ "$1" != --version ] || exec echo apptainer version 1.4.5
while [ "$1" != "image.sif" ]; do shift; done
[ "$2" != sh ] || exit 0
shift 2
exec env PYTHONPATH="$APPTAINERENV_PYTHONPATH" APPTAINER_CONTAINER=1 {sys.executable} "$@"
"""


def site(**values: object) -> Site:
    return Site.build({"name": "s", "executor": "slurm", **values})


@pytest.fixture
def here(tmp_path: Path) -> Facts:
    return take(Question("node", {"run": str(tmp_path)}, {"sbatch": ["true"]}))


def asked(here: Facts, **values: object) -> Answer:
    now = time.time()
    usual = {"facts": {"node": here}, "printed": "", "code": 0, "started": now - 5, "ended": now, "token": here.token}
    return Answer(**{**usual, **values})


def faults(checks: Iterable[Check]) -> list[str]:
    return [f"{check.level} {check.what}" for check in checks if check.level != "OK"]


def test_facts_survive_the_way_back(here: Facts, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from btrm.operate.doctor_node import MARK
    from btrm.operate.doctor_node import main as node

    assert node([f'{{"place": "node", "paths": {{"run": "{tmp_path}"}}}}']) == 0
    read = Facts.read(capfd.readouterr().out.removeprefix(MARK))
    assert read.paths["run"].exists and read.paths["run"].problem == "" and read.packages == here.packages


def test_a_place_that_cannot_be_written_is_a_fault_with_a_fix() -> None:
    fact = PathFact("/data", exists=True, problem="", free_gb=100.0, free_files=10**9)
    facts = replace(take(Question("node")), paths={"HF_HOME": replace(fact, problem="Disk quota exceeded")})
    (check,) = path_checks(facts, absent="FAIL")
    assert check.level == "FAIL" and "Disk quota exceeded" in check.what and check.fix
    levels: dict[str, str] = {}
    for label, changed in {
        "run": replace(fact, free_gb=0.1),
        "HF_HOME": replace(fact, free_files=5),
        "scratch": replace(fact, free_gb=3.0),
        "bind /data:/d:ro": replace(fact, problem="Read-only file system"),
        "bind /none": replace(fact, exists=False),
    }.items():
        levels[label] = next(path_checks(replace(facts, paths={label: changed}), absent="WARN")).level
    assert list(levels.values()) == ["FAIL", "FAIL", "WARN", "OK", "WARN"]


@pytest.mark.parametrize(
    ("call", "level", "said"),
    [
        ("fcntl.flock", "WARN", "flock: Function not implemented"),
        ("os.link", "FAIL", "hard link to another folder: Function not implemented"),
        ("os.rename", "FAIL", "rename to another folder: Function not implemented"),
    ],
)
def test_what_the_runs_file_system_cannot_do_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, level: str, said: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    question = Question("node", {"run": str(tmp_path / "run" / "not made")})
    assert [check.level for check in disk_checks(take(question))] == ["OK"]
    monkeypatch.setattr(call, refuse)
    (check,) = disk_checks(take(question))
    assert check.level == level and said in check.what and check.fix
    assert list(tmp_path.iterdir()) == []
    gone = Question("node", {"run": "/proc/none"})
    assert take(gone).disk == {} and list(disk_checks(take(gone))) == []


def test_an_unset_variable_in_a_path_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_TMPDIR", raising=False)
    (check,) = path_checks(take(Question("node", {"scratch": "$SLURM_TMPDIR"})), absent="FAIL")
    assert check.level == "FAIL" and "a variable in it is not set" in check.what
    monkeypatch.setenv("SLURM_TMPDIR", "/tmp")
    assert take(Question("node", {"scratch": "$SLURM_TMPDIR"})).paths["scratch"].path == "/tmp"


def test_python_and_swift_are_judged(here: Facts) -> None:
    old = replace(here, python="3.9.2", packages={**here.packages, "ms-swift": "4.5.0"})
    assert [c.level for c in python_checks(old)] == ["FAIL", "FAIL"]
    lacking = replace(here, packages={"ms-swift": adapted_swift() or ""})
    first, second = python_checks(lacking)
    assert "lacks numpy, orjson" in first.what and second.level == "OK"


def test_what_differs_between_here_and_the_node_is_said(here: Facts) -> None:
    node = replace(here, python="3.12.1", packages={**here.packages, "submitit": "1.4.0"}, commands={"sbatch": "no"})
    said = "\n".join(faults(compare(site(), here, asked(node, token="another"), gpus=2)))
    assert "WARN node: python 3.12" in said and "submitit" in said and "1.4.0 there" in said
    assert "FAIL node: the run's folder is not the one that is here" in said
    assert "FAIL node: asked for 2 GPUs, sees 0" in said
    assert "FAIL node: sbatch does not work in a job: no" in said
    assert not any("sbatch" in f for f in faults(compare(site(submit_from_nodes=False), here, asked(node), 0)))


def test_a_node_says_what_could_be_its_scratch(here: Facts) -> None:
    room = PathFact("/job/7", exists=True, problem="", free_gb=800.0, free_files=10**9)
    node = replace(here, paths={"$SLURM_TMPDIR": room, "/scratch": replace(room, exists=False), "/tmp": room})
    said = [check.what for check in compare(site(), here, asked(node), 0)]
    assert "node: scratch could be $SLURM_TMPDIR (800 GB), /tmp (800 GB)" in said
    assert not any("$SLURM_TMPDIR" in f for f in faults(compare(site(scratch="/x"), here, asked(node), 0)))


def test_a_clock_that_is_off_is_told_apart_from_a_job_that_took_long(here: Facts) -> None:
    now = time.time()
    early = replace(here, time=now - 100)
    (line,) = (f for f in faults(compare(site(), here, asked(early, started=now - 30), 0)) if "clock is" in f)
    assert "off by at least 70 s" in line
    assert not any("clock is" in f for f in faults(compare(site(), here, asked(early, started=now - 200), 0)))


def test_no_answer_is_a_fault_with_slurms_own_words(here: Facts) -> None:
    answer = asked(here, facts={}, printed="BTRM-BLIND\nsrun: error: boom", code=1)
    said = [str(check) for check in compare(site(), here, answer, 0)]
    assert "the run's folder is not visible on the node" in said[0] and "srun: error: boom" in said[1]


def test_this_machine_can_be_examined_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert main(["doctor", "--site", "local", "--on-node"]) == 0
    assert "runs on this machine" in capsys.readouterr().out
    assert main(["doctor", "--site", "local", "--gpus", "4"]) == 1
    assert "FAIL  here: 0 GPUs, asked for 4" in capsys.readouterr().out
    assert main(["doctor", "--site", "lokal"]) == 2


def test_a_login_node_without_slurm_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["doctor", "--site", "slurm", "--on-node"]) == 1
    said = capsys.readouterr().out
    assert "scontrol, squeue, sbatch, srun not on PATH  -> a login node" in said and "not asked" in said


def test_a_folder_that_a_group_shares_wants_a_umask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2775)
    (tmp_path / "own.toml").write_text('umask = "022"\n')
    main(["doctor", "--site", str(tmp_path / "own.toml"), "--run", str(shared)])
    assert "WARN  umask 022, but" in capsys.readouterr().out
    (tmp_path / "own.toml").write_text('umask = "007"\n')
    main(["doctor", "--site", str(tmp_path / "own.toml"), "--run", str(shared)])
    assert "OK    umask 007 (the site)" in capsys.readouterr().out
    assert str(Check("OK", "x")) == "OK    x"


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site with an image that starts."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/apptainer").write_text(APPTAINER)
    (tmp_path / "bin/apptainer").chmod(0o755)
    (tmp_path / "image.sif").touch()
    (tmp_path / "bind").mkdir()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    path = tmp_path / "boxed.toml"
    path.write_text(
        f'executor = "slurm"\npartition = "low"\nsetup = ["export PATH={tmp_path}/bin:$PATH"]\nscratch = "{tmp_path}"\n'
        f'offline = true\n[container]\nimage = "image.sif"\nbinds = ["{tmp_path}/bind"]\n'
        f'[env]\nHF_HOME = "{tmp_path}/hf"\n'
    )
    return path


@pytest.mark.slow
def test_a_real_job_answers_from_the_node_and_from_the_image(
    slurm: Callable[..., OneBox], image: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm(nodes=1, gpus=2)
    monkeypatch.setattr("btrm.operate.doctor_image_start._SLOW_S", 300.0)  # this machine may be busy
    monkeypatch.setenv("HF_TOKEN", "canary")
    assert main(["doctor", "--site", str(image), "--on-node", "--gpus", "2"]) == 0
    said = capsys.readouterr().out
    for line in (
        "OK    Slurm: scontrol, squeue and sbatch answer; partition low takes your jobs",
        "OK    node: image image.sif: the file that is here",
        "OK    node: the image starts in ",
        "WARN  image: no /opt/btrm/image.json",
        "WARN  offline: 0 models and data sets",
        "OK    node: the run's folder is the same as here",
        "OK    image: the run's folder is the same as here",
        "WARN  node: asked for 2 GPUs, sees 2, but nvidia-smi does not answer",
        "OK    node: clock agrees",
        "OK    node: sbatch works in a job",
    ):
        assert line in said
    assert "FAIL" not in said and "OK    image: XDG_CACHE_HOME, HF_HOME, MODELSCOPE_CACHE" in said
    assert "canary" not in said and not (image.parent / "runs").exists()


@pytest.mark.slow
def test_what_a_cluster_refuses_is_told_before_and_in_a_job(
    slurm: Callable[..., OneBox], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slurm(nodes=1, gpus=1)
    path = tmp_path / "own.toml"
    path.write_text('executor = "slurm"\npartition = "lo"\n')
    assert main(["doctor", "--site", str(path), "--on-node"]) == 1
    said = capsys.readouterr().out
    assert "partition 'lo': none that you may use; did you mean low?" in said and "FAIL  node: not asked" in said
    path.write_text('executor = "slurm"\npartition = "low"\npython = "/no/python"\nscratch = "/no/scratch"\n')
    assert main(["doctor", "--site", str(path), "--on-node"]) == 1
    said = capsys.readouterr().out
    assert "FAIL  node: no answer (exit 127)" in said and "does /no/python exist on nodes?" in said
    assert "WARN  here: scratch /no/scratch: not there" in said


@pytest.mark.slow
def test_a_busy_cluster_is_not_waited_for_longer_than_said(
    slurm: Callable[..., OneBox], capsys: pytest.CaptureFixture[str]
) -> None:
    box = slurm(nodes=1)
    box.run("sbatch", "--exclusive", "--wrap", "sleep 600")
    box.wait_until("the job runs", lambda: box.run("squeue", "-h", "-t", "R", "-o", "%i") != "")
    started = time.monotonic()
    assert main(["doctor", "--site", "onebox", "--on-node", "--wait", "1"]) == 1
    assert "nodes are busy: --wait SECONDS" in capsys.readouterr().out and time.monotonic() - started < 300
    assert box.run("squeue", "-h", "-n", "btrm-doctor") == ""
