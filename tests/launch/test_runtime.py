"""How each runtime is called; the shell that goes with it is run."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from btrm.config import ConfigError
from btrm.images import image_stat
from btrm.launch.runtime import (
    CHANGED_CODE,
    LEAKS,
    exec_words,
    exports,
    image_lines,
    image_problems,
    image_sha256,
    image_warnings,
    job_words,
    mount_lines,
    unset_line,
)
from btrm.launch.site import Container, Site

APPTAINER = Container(image="/images/x.sif", binds=("/data", "/a:/b:ro"), args=("--writable-tmpfs",))
PYXIS = APPTAINER.model_copy(update={"runtime": "pyxis", "image": "/images/x.sqsh", "args": ("--container-writable",)})


def shell(lines: list[str], **env: str) -> subprocess.CompletedProcess[str]:
    script = "\n".join(lines)
    known = {"PATH": os.environ["PATH"], **env}
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=known, check=False)


def said(words: str, cwd: Path) -> list[str]:
    """Return the words that a job's script would start, with $mounts as the script sets it."""
    script = ["mounts=/cwd:/cwd", f"cd {shlex.quote(str(cwd))}", f"printf '%s\\n' {words}"]
    return shell(script).stdout.splitlines()


def test_apptainer_is_a_prefix_of_the_command(tmp_path: Path) -> None:
    words = said(job_words(APPTAINER, ["/my run"], ["HF_HOME"]), tmp_path)
    assert words[:5] == ["apptainer", "-q", "exec", "--no-home", "--nv"]
    binds = [words[place + 1] for place, word in enumerate(words) if word == "--bind"]
    assert binds == ["/data", "/a:/b:ro", "/my run", "/cwd:/cwd"]
    assert words[-5:] == ["--pwd", str(tmp_path), "--writable-tmpfs", "/images/x.sif", "python"]


def test_singularity_goes_by_its_own_name() -> None:
    old = APPTAINER.model_copy(update={"runtime": "singularity", "nv": False})
    assert job_words(old, [], []).startswith("singularity -q exec --no-home --bind ")
    assert exports(old, "/code") == {"SINGULARITYENV_PYTHONPATH": "/code"}
    assert exports(APPTAINER, None) == {"APPTAINERENV_PYTHONPATH": ""} and exports(PYXIS, "/code") == {}


def test_pyxis_is_options_of_srun(tmp_path: Path) -> None:
    words = said(job_words(PYXIS, ["/my run"], ["HF_HOME", "BTRM_CODE"]), tmp_path)
    assert words == [
        "--container-image=/images/x.sqsh",
        "--no-container-mount-home",
        "--container-env=BTRM_CODE,HF_HOME",
        "--container-mounts=/data:/data,/a:/b:ro,/my run:/my run,/cwd:/cwd",
        f"--container-workdir={tmp_path}",
        "--container-writable",
        "python",
    ]


def test_by_hand_the_command_is_the_same_but_for_what_a_node_alone_knows() -> None:
    words = exec_words(APPTAINER, ["/run", "/data"], Path("/cwd"), ["bash", "-c", "exit 3"])
    assert [words[n + 1] for n, word in enumerate(words) if word == "--bind"] == ["/data", "/a:/b:ro", "/run", "/cwd"]
    assert words[-6:] == ["/cwd", "--writable-tmpfs", "/images/x.sif", "bash", "-c", "exit 3"]
    step = exec_words(PYXIS, ["/run"], Path("/cwd"), ["true"])
    assert step[:2] == ["srun", "--overlap"] and step[-2:] == ["--container-writable", "true"]
    assert "--container-mounts=/data:/data,/a:/b:ro,/run:/run,/cwd:/cwd" in step


@pytest.mark.parametrize(
    ("scratch", "expected"),
    [
        (None, []),
        ("$FAST/me", ["fast/me"]),
        ("${FAST}/a b", ["fast/a b"]),
        ("~/scratch", ["scratch"]),
        ("$UNSET", []),
        ("$FAST/$(touch x)`touch x`", ["fast/$(touch x)`touch x`"]),
    ],
)
def test_a_nodes_own_disk_is_there_where_it_has_one(tmp_path: Path, scratch: str | None, expected: list[str]) -> None:
    env = {"HOME": str(tmp_path), "FAST": str(tmp_path / "fast"), "TMPDIR": str(tmp_path / "none")}
    lines = [f"cd {tmp_path}", *mount_lines(scratch, 1), 'echo "$mounts"']
    places = [str(tmp_path), *(str(tmp_path / place) for place in expected)]
    assert shell(lines, **env).stdout.strip() == ",".join(f"{place}:{place}" for place in places)
    assert not (tmp_path / "x").exists()


def test_a_temporary_folder_of_the_job_is_there_and_of_several_nodes_only_what_all_have(tmp_path: Path) -> None:
    lines = [f"cd {tmp_path}", *mount_lines("$TMPDIR", 1), 'echo "$mounts"']
    assert shell(lines, TMPDIR="/var/tmp").stdout.strip() == f"{tmp_path}:{tmp_path},/var/tmp:/var/tmp"
    lines = [f"cd {tmp_path}", *mount_lines("$TMPDIR", 2), 'echo "$mounts" "${TMPDIR-none}"']
    assert shell(lines, TMPDIR="/var/tmp").stdout.strip() == f"{tmp_path}:{tmp_path} none"


def test_a_job_goes_on_with_its_image_or_a_copy_of_it_and_with_no_other(tmp_path: Path) -> None:
    image, known = tmp_path / "my image.sif", tmp_path / "my run"
    image.write_bytes(b"one")
    container = Container(image=str(image))
    sha256, stat = hashlib.sha256(b"one").hexdigest(), image_stat(image)
    lines = [*image_lines(container, sha256, stat, 1, known), "echo goes on"]
    assert shell(lines).stdout == "goes on\n" and not known.exists()
    before = image.stat()
    image.write_bytes(b"two")
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))  # in place: inode, size and time are the same
    assert shell(lines).returncode == CHANGED_CODE
    image.unlink()
    assert shell(lines).returncode == CHANGED_CODE
    image.write_bytes(b"one")  # another file with the same bytes
    assert shell(lines).stdout == "goes on\n"
    image.write_bytes(b"three")
    refused = shell(lines)
    assert refused.returncode == CHANGED_CODE and refused.stdout.startswith(f"btrm: image_changed: {image} is not ")
    assert refused.stdout.endswith(f"(sha256 {sha256}), on {os.uname().nodename}\n") and refused.stdout.count("\n") == 1
    assert image_lines(container, None, None, 1, known) == image_lines(container, sha256, None, 1, known) == []


def test_a_nodes_copy_is_hashed_once_by_all_jobs_and_where_nothing_can_be_written_by_each(tmp_path: Path) -> None:
    image, known, hashed = tmp_path / "x.sif", tmp_path / "images", tmp_path / "hashed"
    image.write_bytes(b"one")
    (tmp_path / "sha256sum").write_text(f"#!/bin/sh\necho >> {hashed}\nsleep 0.2\nexec {shutil.which('sha256sum')} $*")
    (tmp_path / "sha256sum").chmod(0o755)
    lines = image_lines(Container(image=str(image)), hashlib.sha256(b"one").hexdigest(), "of another file", 1, known)
    script, env = "\n".join([*lines, "echo goes on"]), {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def jobs(count: int) -> tuple[set[str], int]:
        hashed.write_text("")
        started = [subprocess.Popen(["bash", "-c", script], text=True, stdout=-1, env=env) for _ in range(count)]
        return {job.communicate()[0] for job in started}, len(hashed.read_text())

    assert jobs(4) == ({"goes on\n"}, 1) and jobs(1) == ({"goes on\n"}, 0)
    (note,) = known.iterdir()
    assert note.name == os.uname().nodename and note.read_text() == f"{image_stat(image)}\n"
    note.unlink()
    note.mkdir()
    assert jobs(1) == ({"goes on\n"}, 1)
    note.rmdir()
    known.rmdir()
    known.write_text("")
    assert jobs(1) == ({"goes on\n"}, 1)


def test_a_pin_refuses_another_image(tmp_path: Path) -> None:
    image = tmp_path / "x.sif"
    image.write_bytes(b"one")
    sha256 = hashlib.sha256(b"one").hexdigest()

    def site(pin: str | None, path: Path = image) -> Site:
        return Site(name="x", executor="slurm", container=Container(image=str(path), sha256=pin))

    assert image_problems(site(sha256)) == image_problems(site(None)) == []
    (line,) = image_problems(site("0" * 64))
    assert sha256 in line and "0" * 64 in line and str(image) in line
    assert "no such file here" in image_problems(site(None, tmp_path / "y.sif"))[0]
    assert "no sha256" in image_problems(site(sha256, tmp_path))[0]  # a sandbox
    with pytest.raises(ConfigError, match="sha256"):
        Container.build({"image": str(image), "sha256": "abc"})


@pytest.mark.parametrize("image", ["docker://x/y:latest", "oras://reg/x:1", "."])
def test_an_image_that_nothing_can_be_held_to_must_be_asked_for(image: str) -> None:
    def site(**more: object) -> Site:
        return Site.build({"name": "x", "executor": "slurm", "container": {"image": image, **more}})

    (line,) = image_problems(site())
    assert image in line and "no sha256" in line and ".sif file, NAME@sha256:" in line and "unpinned = true" in line
    assert image_warnings(site()) == [] == image_problems(site(unpinned=True))
    (warning,) = image_warnings(site(unpinned=True))
    assert image in warning and "unpinned" in warning
    with pytest.raises(ConfigError, match="one of the two"):
        site(unpinned=True, sha256="5" * 64)
    (of_srun,) = image_problems(site(runtime="pyxis"))
    assert "a .sqsh file" in of_srun and "@sha256" not in of_srun


def test_one_with_a_digest_needs_no_word_and_gets_no_warning(tmp_path: Path) -> None:
    (tmp_path / "x.sif").write_bytes(b"one")
    for image in (str(tmp_path / "x.sif"), f"oras://reg/x@sha256:{'5' * 64}"):
        site = Site(name="x", executor="slurm", container=Container(image=image, unpinned=True))
        assert image_problems(site) == image_warnings(site) == []
    assert image_warnings(Site(name="x", executor="slurm")) == []


def test_a_folder_that_cannot_be_bound_is_no_place_to_submit_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "x.sif"
    image.write_bytes(b"one")
    (tmp_path / "a,b").mkdir()
    monkeypatch.chdir(tmp_path / "a,b")
    (line,) = image_problems(Site(name="x", executor="slurm", container=Container(image=str(image))))
    assert "',' splits a bind" in line
    for folder in ("/", "/usr/share", "/opt"):
        monkeypatch.chdir(folder)
        (line,) = image_problems(Site(name="x", executor="slurm", container=Container(image=str(image))))
        assert line.startswith(f"{folder}: bound into the image")
    assert image_problems(Site(name="x", executor="slurm")) == []


def test_references_are_the_runtimes_to_resolve() -> None:
    digest = "5" * 64
    named = Container(runtime="pyxis", image=f"nvcr.io#me/x@sha256:{digest}")
    assert named.file is None and image_sha256(named) == digest
    assert Container(runtime="pyxis", image="ubuntu:24.04").file is None
    assert Container(image="oras://reg/x:1").file is None and image_sha256(Container(image="oras://reg/x:1")) is None
    assert Container(image="x.sif").file == Path("x.sif")
    assert Container(image="~/x.sif").file == Path("~/x.sif").expanduser()


def test_what_would_take_slurms_variables_away_is_refused() -> None:
    with pytest.raises(ConfigError, match="--cleanenv: takes SLURM_"):
        Container.build({"image": "x.sif", "args": ["--cleanenv"]})
    assert Container(runtime="pyxis", image="x", args=("-C", "ib")).args == ("-C", "ib")  # srun's --constraint


OF_APPTAINER = [
    *(f"{name}ENV_{leak}" for name in ("APPTAINER", "SINGULARITY") for leak in LEAKS),
    *(f"{name}_{it}" for name in ("APPTAINER", "SINGULARITY") for it in ("CLEANENV", "CONTAIN", "CONTAINALL")),
]


@pytest.mark.parametrize(
    ("container", "names"),
    [
        (APPTAINER, (*LEAKS, *OF_APPTAINER)),
        (APPTAINER.model_copy(update={"runtime": "singularity"}), (*LEAKS, *OF_APPTAINER)),
        (PYXIS, (*LEAKS, "LD_LIBRARY_PATH")),
    ],
    ids=lambda value: getattr(value, "runtime", None),
)
def test_the_hosts_python_does_not_come_along(container: Container, names: tuple[str, ...]) -> None:
    code = f"import os; print([name for name in {names} if name in os.environ])"
    ask = shlex.join([sys.executable, "-c", code])
    leaking = {name: "/host" for name in names if name not in {"PYTHONHOME", "LD_PRELOAD"}}
    assert shell([unset_line(container), ask], **leaking).stdout == "[]\n"
