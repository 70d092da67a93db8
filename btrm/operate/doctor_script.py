"""What `btrm doctor` runs on a node, or here: the site's setup, then the question, outside and inside its image."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from btrm.launch.sbatch import container_prefix, job_environment
from btrm.launch.site import Container, Site
from btrm.launch.snapshot import snapshot
from btrm.launch.submission import Plan
from btrm.operate.doctor_image import inside_question, outside_question
from btrm.operate.doctor_node import MARK, Facts, Question

BLIND = "BTRM-BLIND"  # what is printed where the run's folder cannot be read
_MODULE = ("-m", "btrm.operate.doctor_node")


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
    exports = [f"export {name}={shlex.quote(value)}" for name, value in job_environment(site, plan).items()]
    lines = [*([f"umask {site.umask}"] if site.umask else []), *site.setup, *exports]
    lines.append(f"test -r {shlex.quote(question.token)} || echo {BLIND}")
    python, container = site.python or sys.executable, site.container
    if container is None:
        return "\n".join([*lines, _asking([python], question)])
    outside = outside_question(question, site, container, plan, _start(container, plan))
    lines.append(_asking([python], outside))
    lines.append(_asking(container_prefix(container, plan), inside_question(outside, image)))
    return "\n".join(lines)


def _start(container: Container, plan: Plan) -> list[str]:
    """Return what starts the image and does nothing in it, with the runtime's remarks shown."""
    words = [word for word in container_prefix(container, plan) if word not in ("-q", "--quiet")]
    return [*words[:-1], "true"]


def _asking(python: list[str], question: Question) -> str:
    return shlex.join([*python, *_MODULE, json.dumps(asdict(question))])
