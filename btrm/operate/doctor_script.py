"""What `btrm doctor` runs on a node, or here: the site's setup, then the question, outside and inside its image."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from btrm.launch.runtime import job_words, mount_lines, unset_line
from btrm.launch.sbatch import bound, job_environment
from btrm.launch.site import Container, Site
from btrm.launch.snapshot import snapshot
from btrm.launch.submission import Plan
from btrm.operate.doctor_image import inside_question, outside_question
from btrm.operate.doctor_node import MARK, Facts, Question

BLIND = "BTRM-BLIND"  # what is printed where the run's folder cannot be read


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the facts by place, all that was printed, and this machine's clock before and after."""

    facts: dict[str, Facts]
    printed: str
    code: int
    started: float
    ended: float
    token: str


@contextmanager
def folder_in(run: Path) -> Generator[Path]:
    """Make a folder in a run's folder and take it away again, with the run's where that was not there."""
    made = next((path for path in (*reversed(run.parents), run) if not path.exists()), None)
    folder = run / f".doctor-{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(made or folder, ignore_errors=True)


def ask(folder: Path, run: Callable[[], tuple[str, int]]) -> Answer:
    """Run what asks, which returns all that was printed and an exit status, and read the answers."""
    token = uuid.uuid4().hex
    (folder / "token").write_text(token)
    started = time.time()
    printed, code = run()
    lines = [line.partition(MARK)[2] for line in printed.splitlines() if MARK in line]
    facts = {found.place: found for found in map(Facts.read, lines)}
    return Answer(facts, printed, code, started, time.time(), token)


def script(site: Site, folder: Path, question: Question, image: str) -> str:
    """Return the script: the site's setup as every job has it, then the question; `image` is the place inside."""
    plan = Plan(root=str(folder), steps=(), env=site.env, code=str(snapshot(folder)))
    values, container = job_environment(site, plan), site.container
    lines = [*([f"umask {site.umask}"] if site.umask else []), *site.setup]
    if container is not None:
        lines += [unset_line(container), *mount_lines(site.scratch, 1), "export mounts"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    lines.append(f"test -r {shlex.quote(question.token)} || echo {BLIND}")
    python = site.python or sys.executable
    if container is None:
        return "\n".join([*lines, f"{shlex.quote(python)} {_asking(question)}"])
    start = _in_image(container.model_copy(update={"python": "sh"}), plan, values).replace(" -q exec", " exec", 1)
    start += " -c true"  # to srun a colon would be a word of its own
    outside = outside_question(question, site, container, plan, start)
    lines.append(f"{shlex.quote(python)} {_asking(outside)}")
    lines.append(f"{_in_image(container, plan, values)} {_asking(inside_question(outside, image))}")
    return "\n".join(lines)


def _in_image(container: Container, plan: Plan, handed: Iterable[str]) -> str:
    """Return the shell words that a job's Python is started with, up to Python's own.

    What a job does first, which is to look for the packages that btrm needs, is left out: it is among the questions.
    """
    words = job_words(container, bound(plan), handed)
    return f"srun --overlap --nodes=1 --ntasks=1 {words}" if container.runtime == "pyxis" else words


def _asking(question: Question) -> str:
    return shlex.join(["-m", "btrm.operate.doctor_node", json.dumps(asdict(question))])
