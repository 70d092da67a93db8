"""What `btrm doctor` makes of an image's answers; Apptainer's and NVIDIA's own words are played where they are said."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from btrm.checks import Check
from btrm.cli import main
from btrm.launch.site import Container, Site
from btrm.operate.doctor_image import file_checks, image_checks, runtime_trials, same_file_checks
from btrm.operate.doctor_image_complaints import explain
from btrm.operate.doctor_image_driver import driver_checks, driver_version, nv_checks
from btrm.operate.doctor_image_facts import Around, cache_folder, file_line, look_around
from btrm.operate.doctor_image_leaks import leak_checks
from btrm.operate.doctor_image_places import CWD, bind_checks, cache_checks, room_checks
from btrm.operate.doctor_image_start import PYXIS, START, VERSION, start_checks, version
from btrm.operate.doctor_image_trial import Trial, attempt
from btrm.operate.doctor_node import Facts, PathFact, Question, take

CODE = "/run/.code/0123"
GOOD = PathFact("/run/.cache", exists=True, problem="", free_gb=100.0, free_files=10**9, mark="1:2")
QUIET = Around(
    sys_path=[CODE, "/opt/btrm/venv/lib/python3.12", "/usr/lib/python3.12"],
    prefixes=["/opt/btrm/venv", "/usr"],
    sizes_gb={"/tmp": 100.0, "/dev/shm": 64.0},
)


@pytest.fixture(scope="module")
def outside() -> Facts:
    seen = {"the run": "1:1", CWD: "1:5", "/tmp": "1:3", "/dev/shm": "1:4"}
    caches = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "HF_HOME"), GOOD)
    return replace(take(Question("node")), seen=seen, caches=caches, around=QUIET, devices=None, gpus=[])


@pytest.fixture(scope="module")
def inside(outside: Facts) -> Facts:
    return replace(outside, place="image", code=f"{CODE}/btrm")


def around(facts: Facts, **values: object) -> Facts:
    return replace(facts, around=replace(facts.around, **values))


def faults(checks: Iterable[Check]) -> list[str]:
    found = list(checks)
    assert all(check.fix for check in found if check.level != "OK"), "each fault has its fix"
    return [f"{check.level} {check.what}" for check in found if check.level != "OK"]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`command(name, said, code)` puts one on PATH that says it and ends so."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    def make(name: str, said: str, code: int = 0) -> str:
        (tmp_path / f"{name}.said").write_text(said)
        (folder / name).write_text(f"#!/bin/sh\ncat {tmp_path}/{name}.said >&2\nexit {code}\n")
        (folder / name).chmod(0o755)
        return str(folder / name)

    return make


def test_a_sound_image_has_no_fault(outside: Facts, inside: Facts) -> None:
    site = Site.build({"name": "s", "executor": "slurm", "container": {"image": "/x.sif"}})
    record = {"variant": "cu13", "code": "0" * 16, "lock_sha256": "a" * 64, "built": "2030", "driver": 580}
    good = around(inside, record=record)
    lines = list(image_checks(site, outside, good, 0))
    assert faults(lines) == []
    assert "cu13, lock aaaaaaaaaaaa, built 2030 with other code (0000000000000000)" in lines[0].what


def test_the_surroundings_survive_the_way_back(outside: Facts) -> None:
    import orjson

    facts = replace(outside, around=look_around(), trials={START: Trial(0, 0.5, "x")})
    assert Facts.read(orjson.dumps(asdict(facts)).decode()) == facts


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("580.65.06", 580),
        ("535.129.03", 535),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023", 535),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build", 580),
        ("580.95", 580),
        ("", None),
        ("[N/A]", None),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", None),
        ("Unable to determine the device handle for GPU 0000:41:00.0: Unknown Error", None),
    ],
)
def test_a_drivers_release_is_read_from_either_of_its_lines(said: str, found: int | None) -> None:
    assert driver_version(said) == found


@pytest.mark.parametrize(
    ("driver", "cuda", "declared", "gpus", "fault"),
    [
        ("580.65.06", "13.0", None, 8, ""),
        ("575.57.08", "13.0", None, 8, "FAIL image: driver 575 is too old: torch's CUDA 13.0 needs 580"),
        ("575.57.08", "13.0", None, 0, "WARN image: driver 575 is too old"),
        ("575.57.08", "12.8", None, 8, ""),
        ("515.43.04", "12.1", None, 8, "FAIL image: driver 515 is too old: torch's CUDA 12.1 needs 525"),
        ("535.129.03", "12.8", 570, 8, "FAIL image: driver 535 is too old: the image (cu12) needs 570"),
        ("580.65.06", "14.1", None, 8, ""),
        ("570.1", "14.1", None, 8, "FAIL image: driver 570 is too old: torch's CUDA 14.1 needs 580"),
        ("", "13.0", None, 0, ""),
        ("", "13.0", None, 2, "WARN node: no NVIDIA driver; torch's CUDA 13.0 needs 580"),
        ("[N/A]", "13.0", None, 2, "WARN node: cannot tell the driver's version from '[N/A]'"),
        ("580.65.06", "", None, 0, ""),
        ("580.65.06", "", None, 2, "FAIL image: asked for 2 GPUs, and no torch with CUDA is in it"),
    ],
)
def test_the_driver_is_held_against_what_the_image_needs(
    outside: Facts, inside: Facts, driver: str, cuda: str, declared: int | None, gpus: int, fault: str
) -> None:
    record = {"variant": "cu12", "driver": declared} if declared else {}
    said = faults(driver_checks(around(outside, driver=driver), around(inside, cuda=cuda, record=record), gpus))
    assert [line[: len(fault)] for line in said] == ([fault] if fault else [])


def test_nvidia_smi_is_asked_for_the_driver(command: Callable[..., str]) -> None:
    command("nvidia-smi", "580.65.06\n580.65.06\n")
    assert look_around().driver == "580.65.06"
    command("nvidia-smi", "Failed to initialize NVML: Driver/library version mismatch", code=18)
    assert "mismatch" not in look_around().driver


def test_what_nv_did_not_bring_is_named(outside: Facts, inside: Facts) -> None:
    host = replace(around(outside, driver="580.65.06", devices=2), gpus=["GPU 0: H100", "GPU 1: H100"])
    whole = replace(around(inside, devices=2), gpus=host.gpus)
    assert faults(nv_checks(host, whole, 2, nv=True)) == []
    poor = around(inside, libcuda="libcuda.so.1: cannot open shared object file", devices=1)
    (line,) = faults(nv_checks(host, poor, 2, nv=True))
    assert line.startswith("FAIL image: --nv brought no libcuda.so.1 (libcuda.so.1: cannot open")
    assert "no nvidia-smi that answers, no /dev/nvidia* (1 of 2)" in line
    assert faults(nv_checks(host, poor, 2, nv=False)) == ["FAIL image: asked for 2 GPUs without --nv"]
    assert list(nv_checks(outside, poor, 2, nv=True)) == [], "without a driver outside there is nothing to bring"


def test_the_cuda_of_torch_is_read_and_torch_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from btrm.operate.doctor_image_gpu import torch_cuda

    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert torch_cuda() == ""
    (tmp_path / "torch/version.py").write_text(
        "from typing import Optional\ncuda: Optional[str] = '12.8'\nhip = None\n"
    )
    assert torch_cuda() == "12.8"
    (tmp_path / "torch/version.py").write_text("cuda: Optional[str] = None\n")
    assert torch_cuda() == ""


@pytest.mark.parametrize(
    ("variables", "gone", "fault"),
    [
        ({"PYTHONPATH": CODE}, {}, ""),
        ({"PYTHONPATH": f"{CODE}:/host/site"}, {}, "WARN image: PYTHONPATH holds /host/site too"),
        ({"PYTHONHOME": "/usr"}, {}, "FAIL image: PYTHONHOME=/usr"),
        ({"LD_PRELOAD": "/usr/lib/x.so"}, {}, "WARN image: LD_PRELOAD=/usr/lib/x.so"),
        ({"LD_PRELOAD": "/h/x.so"}, {"LD_PRELOAD": ["/h/x.so"]}, "FAIL image: LD_PRELOAD=/h/x.so, which is not there"),
        ({"LD_LIBRARY_PATH": "/.singularity.d/libs"}, {}, ""),
        ({"LD_LIBRARY_PATH": "/.singularity.d/libs:/cuda/lib"}, {"LD_LIBRARY_PATH": ["/cuda/lib"]}, "WARN image: LD_L"),
        ({"CONDA_PREFIX": "/home/u/conda"}, {}, "WARN image: CONDA_PREFIX=/home/u/conda is not the image's"),
        ({"VIRTUAL_ENV": "/opt/btrm/venv"}, {}, ""),
        ({"CC": "/apps/gcc"}, {"CC": ["/apps/gcc"]}, "WARN image: CC=/apps/gcc is not in it, which breaks what triton"),
        ({"SSL_CERT_FILE": "/etc/pki/x.pem"}, {"SSL_CERT_FILE": ["/etc/pki/x.pem"]}, "WARN image: SSL_CERT_FILE=/etc/"),
    ],
)
def test_what_leaks_in_is_named(
    outside: Facts, inside: Facts, variables: dict[str, str], gone: dict[str, list[str]], fault: str
) -> None:
    said = faults(leak_checks(outside, around(inside, variables=variables, gone=gone)))
    assert [line[: len(fault)] for line in said] == ([fault] if fault else [])


def test_what_python_looks_into_is_the_images_or_the_codes_copy(outside: Facts, inside: Facts) -> None:
    foreign = around(inside, sys_path=[*QUIET.sys_path, "/home/u/tools"])
    assert faults(leak_checks(outside, foreign)) == ["WARN image: Python also looks into /home/u/tools"]
    home = around(inside, user_site="/home/u/.local/lib", sys_path=["/home/u/.local/lib"])
    assert faults(leak_checks(outside, home)) == ["WARN image: packages of a home count too (/home/u/.local/lib)"]


def test_a_cache_must_be_writable_and_be_the_one_outside(outside: Facts, inside: Facts) -> None:
    bad = replace(GOOD, path="/root/.cache/huggingface", problem="Read-only file system")
    said = list(cache_checks(outside, replace(inside, caches={**inside.caches, "HF_HOME": bad})))
    assert [str(line) for line in said] == [
        "FAIL  image: HF_HOME is not set, so it is /root/.cache/huggingface: Read-only file system"
        "  -> [env] HF_HOME = a folder that is bound"
    ]
    here = replace(outside, caches={**outside.caches, "HF_HOME": replace(bad, problem="")})
    given = around(replace(inside, caches={**inside.caches, "HF_HOME": bad}), variables={"HF_HOME": bad.path})
    (line,) = cache_checks(here, given)
    assert line.fix == 'binds = ["/root/.cache/huggingface"] in [container]'
    other = replace(inside, caches={**inside.caches, "HF_HOME": replace(GOOD, mark="9:9")})
    assert "is not the one outside: it ends with the image" in faults(cache_checks(outside, other))[0]
    homeless = replace(inside, caches={**inside.caches, "HOME": bad})
    assert faults(cache_checks(outside, homeless)) == [], "nothing needs a home where the caches are elsewhere"


def test_caches_lie_where_their_packages_put_them() -> None:
    assert cache_folder("HF_HOME", {"XDG_CACHE_HOME": "/c"}) == "/c/huggingface"
    assert cache_folder("VLLM_CACHE_ROOT", {}) == "~/.cache/vllm"
    assert cache_folder("TORCHINDUCTOR_CACHE_DIR", {"USER": "u"}) == "/tmp/torchinductor_u"
    assert cache_folder("TRITON_CACHE_DIR", {"TRITON_CACHE_DIR": "/t", "XDG_CACHE_HOME": "/c"}) == "/t"


def test_a_missing_bind_is_told_from_a_folder_of_the_same_name(outside: Facts, inside: Facts) -> None:
    host = replace(outside, seen={**outside.seen, "bind /data": "2:1", "bind /b:/c": "2:2", "the scratch": ""})
    image = replace(inside, seen={**host.seen, "bind /data": "", "bind /b:/c": "0:7", CWD: ""})
    assert faults(bind_checks(host, image)) == [
        f"WARN image: {CWD} is not there",
        "FAIL image: bind /data is not there",
        "FAIL image: bind /b:/c is another folder of that name",
    ]


def test_little_room_is_told_with_the_room_outside(outside: Facts, inside: Facts) -> None:
    small = around(
        replace(inside, seen={"/tmp": "9:1", "/dev/shm": "9:2"}), sizes_gb={"/tmp": 0.064, "/dev/shm": 0.064}
    )
    said = list(room_checks(outside, small, 8))
    assert faults(said) == [
        "FAIL image: /tmp is 64 MB (100 GB outside), little for temporary files",
        "FAIL image: /dev/shm is 64 MB (64 GB outside), little for vLLM, NCCL and data loaders",
    ]
    assert "no --contain" in said[0].fix
    own = around(replace(inside, seen={"/tmp": "9:1", "/dev/shm": "1:4"}))
    assert faults(room_checks(outside, own, 0)) == [
        "WARN image: /tmp is one of its own, in memory (100 GB), not that outside"
    ]
    gone = around(inside, sizes_gb={"/tmp": 100.0})
    assert faults(room_checks(outside, gone, 0)) == ["FAIL image: /dev/shm is not there"]
    docker = around(inside, sizes_gb={"/tmp": 100.0, "/dev/shm": 0.064})
    assert faults(room_checks(docker, docker, 0))[0].startswith("WARN image: /dev/shm is 64 MB (64 MB outside)")


@pytest.mark.parametrize(
    ("said", "code", "fault"),
    [
        ("", 0, ""),
        (
            "INFO:    squashfuse not found, will not be able to mount SIF\n"
            "INFO:    Converting SIF file to temporary sandbox...\nINFO:    Cleaning up image...",
            0,
            "WARN node: the image is unpacked at each start: ",
        ),
        ("INFO:    Converting SIF file to temporary sandbox...", 0, "WARN node: the image is unpacked at each start"),
        (
            "FATAL:   container creation failed: image driver mount failure: image driver squashfuse_ll instance exited"
            " with error: squashfuse_ll exited: fusermount3: mount failed: Operation not permitted",
            255,
            "FAIL node: the image does not start: FUSE does not work (FATAL",
        ),
        (
            "ERROR  : Failed to create user namespace: user namespace disabled",
            1,
            "FAIL node: the image does not start: users may not have namespaces of their own",
        ),
        (
            "FATAL:   while extracting /i.sif: root filesystem extraction failed: extract command failed: WARNING: "
            "Skipping mount /etc/hosts [binds]: /etc/hosts doesn't exist in container",
            255,
            "FAIL node: the image does not start: the image is unpacked at each start, and that failed",
        ),
        ("FATAL: write /tmp/rootfs: No space left on device", 255, "FAIL node: the image does not start: no room to"),
        ("Transport endpoint is not connected", 255, "FAIL node: the image does not start: the image's FUSE mount"),
        ("FATAL:   something new", 255, "FAIL node: the image does not start: FATAL:   something new"),
        ("", 255, "FAIL node: the image does not start: it said nothing"),
    ],
)
def test_what_apptainer_says_at_the_start_is_explained(
    outside: Facts, command: Callable[..., str], said: str, code: int, fault: str
) -> None:
    tried = attempt([command("apptainer", said, code), "exec", "i.sif", "true"], 60)
    found = faults(start_checks(replace(outside, trials={START: tried}), "FAIL"))
    assert [line[: len(fault)] for line in found] == ([fault] if fault else [])
    assert ("squashfuse is missing" in "".join(found)) == ("squashfuse not found" in said)


def test_what_the_kernel_forbids_is_named_beside(outside: Facts) -> None:
    facts = around(outside, fuse=False, namespaces="user.max_user_namespaces = 0")
    tried = Trial(255, 0.1, "ERROR  : Failed to create user namespace: No space left on device")
    (line,) = start_checks(replace(facts, trials={START: tried}), "FAIL")
    assert "[seen there: no /dev/fuse that you may use, user.max_user_namespaces = 0]" in line.fix


def test_a_start_that_takes_long_is_told(outside: Facts) -> None:
    quick, slow = ({START: Trial(0, seconds, "")} for seconds in (0.4, 30.0))
    (line,) = start_checks(replace(outside, trials=quick), "FAIL")
    assert str(line) == "OK    node: the image starts in 0.4 s"
    assert faults(start_checks(replace(outside, trials=slow), "FAIL")) == ["WARN node: the image takes 30.0 s to start"]


@pytest.mark.parametrize(
    ("said", "level"),
    [
        ("apptainer version 1.4.5", "OK"),
        ("apptainer version 1.1.0-1.el8", "OK"),
        ("apptainer version 1.0.3", "WARN"),
        ("singularity-ce version 3.11.4-1.el8", "OK"),
        ("singularity version 3.8.7-1.el7", "OK"),
        ("singularity version 3.5.2", "FAIL"),
        ("2.6.1-dist", "WARN"),
    ],
)
def test_a_runtime_that_is_too_old_is_told(outside: Facts, command: Callable[..., str], said: str, level: str) -> None:
    tried = attempt([command("apptainer", said), "--version"], 60)
    (line,) = start_checks(replace(outside, trials={VERSION: tried}), "FAIL")
    assert line.level == level and (line.fix or level == "OK")
    assert version("apptainer version 1.4.5") == ("apptainer", (1, 4))


def test_a_machine_without_the_runtime_is_told_once(outside: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    tried = attempt(["apptainer", "--version"], 60)
    facts = replace(outside, trials={VERSION: tried, START: Trial(127, 0.0, "apptainer: command not found")})
    (line,) = start_checks(facts, "WARN")
    assert line.level == "WARN" and "no runtime for the image: apptainer: No such file" in line.what
    assert "module load apptainer" in line.fix


@pytest.mark.parametrize(
    ("said", "level"),
    [("Options provided by plugins:\n      --container-image=[USER@][REGISTRY#]IMAGE", "OK"), ("Usage: srun", "FAIL")],
)
def test_pyxis_is_looked_for_among_sruns_options(
    outside: Facts, command: Callable[..., str], said: str, level: str
) -> None:
    container = Container(image="nvcr.io#nvidia/pytorch", runtime="pyxis")
    path = Path(command("srun", said))
    path.write_text(path.read_text().replace(">&2", ""))
    trials = {name: attempt(words, 60) for name, words in runtime_trials(container).items()}
    (line,) = start_checks(replace(outside, trials=trials), "FAIL")
    assert [*trials] == [PYXIS] and line.level == level and "--container-image" in line.what


def test_an_unknown_complaint_is_not_explained() -> None:
    assert explain("all is well") is None
    full = "FATAL: while extracting i.sif: root filesystem extraction failed: write: No space left on device"
    assert (explain(full) or [""])[0] == "no room to unpack the image", "the cause, not what came of it"
    means, fix = explain("FATAL:   mount source /data/x doesn't exist") or ("", "")
    assert means == "/data/x is to be bound and is not there" and fix


def test_the_images_file_is_the_one_that_is_pinned(tmp_path: Path) -> None:
    import hashlib

    image = tmp_path / "i.sif"
    (gone,) = file_checks(Container(image=str(image)))
    assert str(gone).startswith(f"FAIL  image {image}: not there")
    image.write_bytes(b"image")
    digest = hashlib.sha256(b"image").hexdigest()
    (plain,), (pinned,) = (
        file_checks(Container(image=str(image))),
        file_checks(Container(image=str(image), sha256=digest)),
    )
    assert plain.level == "OK" and pinned.what.endswith(", as pinned")
    (other,) = file_checks(Container(image=str(image), sha256="0" * 64))
    assert other.level == "FAIL" and digest in other.what and "0" * 64 in other.what
    (folder,) = file_checks(Container(image=str(tmp_path)))
    (tag,) = file_checks(Container(image="docker://x/y:latest"))
    (allowed,) = file_checks(Container(image="docker://x/y:latest", unpinned=True))
    assert (folder.level, tag.level, allowed.level) == ("FAIL", "FAIL", "WARN")
    assert "a folder" in folder.what and "by tag" in tag.what


def test_the_nodes_file_is_the_one_that_is_here(outside: Facts, tmp_path: Path) -> None:
    image = tmp_path / "i.sif"
    image.write_bytes(b"image")
    container, line = Container(image=str(image)), file_line(str(image))
    inode, size, seconds = line.split()
    levels: list[str] = []
    for there in (line, f"{inode} {size} 1", f"{inode} 1 {seconds}", "No such file or directory", "not readable"):
        (found,) = same_file_checks(container, replace(outside, files={"image": there}))
        levels.append(found.level)
    assert levels == ["OK", "WARN", "FAIL", "FAIL", "FAIL"]
    assert file_line(str(tmp_path / "none")) == "No such file or directory"


def test_what_the_image_lacks_of_btrms_needs_is_told(
    outside: Facts, inside: Facts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import btrm

    (tmp_path / "REQUIRES").write_text('numpy>=999\nno-such-package\npydantic>=1\nruff>=999; extra == "dev"\n')
    monkeypatch.setattr(btrm, "__file__", str(tmp_path / "btrm/__init__.py"))
    site = Site.build({"name": "s", "executor": "slurm", "container": {"image": "/x.sif"}})
    lacking = around(inside, unfit=look_around().unfit, record={"problem": "no JSON"})
    said = faults(image_checks(site, outside, lacking, 0))
    assert said[0] == "FAIL image: /opt/btrm/image.json: no JSON"
    assert "btrm needs numpy>=999; has no no-such-package" in said[1] and "ruff" not in said[1]


def test_an_image_is_not_looked_at_with_a_site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--image", str(tmp_path / "no.sif")]) == 1
    assert capsys.readouterr().out.startswith(f"FAIL  image {tmp_path}/no.sif: not there")
    assert main(["doctor", "--image", "x.sif", "--on-node"]) == 2


def test_an_image_alone_is_started_here_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: Callable[..., str]
) -> None:
    (tmp_path / "i.sif").touch()
    command("apptainer", "FATAL:   could not open image i.sif: image format not recognized", code=255)
    assert main(["doctor", "--image", str(tmp_path / "i.sif")]) == 1
    assert "FAIL  here: no runtime for the image" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()
