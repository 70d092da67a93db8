"""`btrm doctor` on an image without a job: it is started on this machine, as a job of the site would start it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from btrm.checks import Check, Level
from btrm.launch.site import Site
from btrm.launch.slurm import job_environ
from btrm.operate.doctor_check import paths_to_check
from btrm.operate.doctor_compare import hub_address, image_answer
from btrm.operate.doctor_image import runtime_trials
from btrm.operate.doctor_image_start import start_checks
from btrm.operate.doctor_node import Facts, Question, take
from btrm.operate.doctor_script import ask, folder_in, script

HERE, INSIDE = "here", "image here"
_LONGEST_S = 600  # a start may unpack the image, and it is started twice


def view(image: str) -> Site:
    """Return a site that is this machine with an image: a view to look through, which no job is sent to."""
    return Site.build({"name": "image", "executor": "slurm", "container": {"image": image}})


def image_here_checks(site: Site, here: Facts, run: Path, gpus: int, absent: Level) -> Iterator[Check]:
    """Yield what an image says when it is started here; `here` are this machine's own facts.

    `absent` is the level of a machine that has no runtime for it.
    """
    container = site.container
    assert container is not None
    if container.runtime == "pyxis":  # which starts images in jobs alone
        yield from start_checks(take(Question(HERE, trials=runtime_trials(container))), absent)
        return
    try:
        with folder_in(run) as folder:
            answer = ask(folder, lambda: _shell(script(site, folder, _question(site, folder), INSIDE)))
    except OSError as error:
        yield Check("FAIL", f"{HERE}: {run}: {error.strerror}", "--run DIR where you may write")
        return
    if HERE not in answer.facts:
        said = " / ".join(answer.printed.strip().splitlines()[-3:]) or "nothing"
        yield Check("FAIL", f"{HERE}: setup and python of the site: no answer: {said}", "correct them in its file")
    yield from image_answer(site, here, answer, gpus, HERE, INSIDE, absent)


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
