"""Where an attempt's trainer writes, and how that becomes the run's.

Each attempt writes into a folder of its own below `checkpoints/`, and publishes each whole checkpoint by one rename. So
the trainer of an older attempt that lives on, on a node that was cut off, spoils nothing: it may no longer publish.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import uuid
from pathlib import Path

from btrm.checkpoints import checkpoints, is_whole, step_of
from btrm.leases import check_held
from btrm.publishing import win

_ATTEMPT = ".attempt-"
_LOGS = {"logging.jsonl": rb'"global_step/max_steps": "(\d+)/', "completions.jsonl": rb'"step": \["(\d+)"'}
_FOLDERS = ("runs", "images")  # tensorboard's, and ms-swift's pictures of it


def attempt_folder(folder: Path) -> Path:
    """Return where a new attempt's trainer writes."""
    return folder / f"{_ATTEMPT}{uuid.uuid4().hex[:8]}"


def publish(checkpoint: Path, folder: Path) -> Path:
    """Move a marked checkpoint to where it counts; return that path. Raises Fenced in an attempt that was replaced."""
    target = folder / checkpoint.name
    win(checkpoint, target)
    return target


def gather(folder: Path) -> None:
    """Take what ended attempts logged up to the last whole checkpoint into the run's own files; remove the rest.

    Steps after it are done again by the next attempt, and logged by it: none is lost, none stands there twice. Call it
    with the stage's directory held: no live attempt may be writing here.
    """
    check_held()
    whole = [step_of(path) for path in checkpoints(folder) if is_whole(path)]
    for attempt in sorted(folder.glob(f"{_ATTEMPT}*"), key=lambda path: path.stat().st_mtime):
        for name, step in _LOGS.items():
            if (attempt / name).exists():
                _continue(folder / name, attempt / name, re.compile(step), max(whole, default=0))
        for name in _FOLDERS:
            _move_below(attempt / name, folder / name)
        shutil.rmtree(attempt, ignore_errors=True)
    if whole:
        (folder / "logging.jsonl").touch()


def _continue(target: Path, source: Path, step: re.Pattern[bytes], last: int) -> None:
    """Append the lines of steps that `target` does not have yet, up to the last."""
    known = _last_step(target, step)
    with source.open("rb") as lines, target.open("ab") as file:
        for line in lines:
            found = step.search(line)
            if found is not None and line.endswith(b"\n") and known < int(found[1]) <= last:
                file.write(line)


def _last_step(path: Path, step: re.Pattern[bytes]) -> int:
    """Return the highest step in a log, which loses a last line that is only a part."""
    if not path.exists():
        return 0
    last = whole = 0
    with path.open("rb+") as file:
        for line in file:
            if line.endswith(b"\n"):
                whole += len(line)
                found = step.search(line)
                last = max(last, int(found[1])) if found is not None else last
        file.truncate(whole)
    return last


def _move_below(source: Path, target: Path) -> None:
    if source.is_dir():
        target.mkdir(exist_ok=True)
        for path in source.iterdir():
            with contextlib.suppress(OSError):
                shutil.move(path, target / path.name)
