"""`btrm doctor` on an image without a job: it is started on this machine, as a job of the site would start it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from btrm.checks import Check
from btrm.launch.site import Site
from btrm.launch.slurm import job_environ
from btrm.operate.doctor_check import paths_to_check
from btrm.operate.doctor_compare import hub_address, image_answer
from btrm.operate.doctor_image import file_checks
from btrm.operate.doctor_node import Facts, Question
from btrm.operate.doctor_script import Answer, ask, folder_in, script

HERE, INSIDE = "here", "image here"
_LONGEST_S = 600  # a start may unpack the image, and it is started twice


def view(image: str) -> Site:
    """Return a site that is this machine with an image: a view to look through, which no job is sent to."""
    return Site.build({"name": "image", "executor": "slurm", "container": {"image": image}})


def image_here_checks(site: Site, here: Facts, run: Path, gpus: int) -> Iterator[Check]:
    """Yield what an image says when it is started here; `here` are this machine's own facts."""
    assert site.container is not None
    failed = False
    for check in file_checks(site.container):
        failed |= check.level == "FAIL"
        yield check
    if failed:
        return
    try:
        with folder_in(run) as folder:
            answer = ask(folder, lambda: _shell(script(site, folder, _question(site, folder), INSIDE)))
    except OSError as error:
        yield Check("FAIL", f"{HERE}: {run}: {error.strerror}", "--run DIR where you may write")
        return
    yield from _outside(answer)
    yield from image_answer(site, here, answer, gpus, (HERE, INSIDE))


def _outside(answer: Answer) -> Iterator[Check]:
    if HERE not in answer.facts:
        said = " / ".join(answer.printed.strip().splitlines()[-3:]) or "nothing"
        yield Check(
            "FAIL", f"{HERE}: the site's setup and python: no answer: {said}", "setup, python in the site's file"
        )


def _question(site: Site, folder: Path) -> Question:
    paths = {**paths_to_check(site, str(folder), os.environ), "/dev/shm": "/dev/shm"}
    return Question(place=HERE, paths=paths, token=str(folder / "token"), hub=hub_address())


def _shell(text: str) -> tuple[str, int]:
    """Return what a shell like that of a job prints, and its exit status."""
    words = ["bash", "-c", text]
    try:
        done = subprocess.run(
            words,
            env=job_environ(os.environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_LONGEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {_LONGEST_S} s", 124
    return done.stdout, done.returncode
