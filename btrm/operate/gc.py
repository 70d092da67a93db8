"""Making room: what no manifest and no later attempt needs. Refused while anything of the run may be at work."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from btrm.checkpoints import MARK as WHOLE
from btrm.checkpoints import checkpoints, file_sizes, is_whole, read_mark
from btrm.config import ConfigError
from btrm.launch.queue import forget, look
from btrm.launch.submission import Submission, submissions
from btrm.leases import live_owner
from btrm.operate.ledger import SPENT, entries_of
from btrm.operate.status import is_complete
from btrm.publishing import write_json
from btrm.runs import MANIFEST, REQUEST, read_manifest

_DEAD = (".attempts", "set_aside")
_RECORDS = ("logs", "state", "scripts", "requeue")
# What a trainer resumes from and nothing else reads: Hugging Face's names, and DeepSpeed's folder.
_OPTIMIZER = ("optimizer.pt", "optimizer.bin", "scheduler.pt", "rng_state*.pth", "global_step*")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What may go beyond the leavings of dead attempts: logs older than `days`, optimizer states."""

    days: float = 7.0
    checkpoints: bool = False


@dataclass(frozen=True, slots=True)
class Removal:
    """One thing to remove. `shrinks`: the checkpoint that stays whole without it; `of`: the submission it records."""

    path: Path
    why: str
    bytes: int
    shrinks: Path | None = None
    of: Submission | None = None


def collect(root: Path, wanted: Wanted) -> list[Removal]:
    """Return what can go; raise ConfigError where the run is at work, or may be."""
    if living := _living(root):
        raise ConfigError(f"{root}: at work: {', '.join(living)}; nothing is removed meanwhile")
    found = [*_leavings(root), *_old_records(root, wanted.days), *_unused_code(root)]
    if wanted.checkpoints:
        found += _optimizers(root)
    claimed = _claimed(root)
    holding = {*claimed, *(parent for path in claimed for parent in path.parents)}
    return [item for item in found if item.path not in holding and item.shrinks not in holding]


def remove(items: Iterable[Removal]) -> None:
    """Remove things; what a submission spent, and that a checkpoint is whole, is written down first."""
    for item in items:
        if item.of is not None:
            _keep_spending(item.of)
        if item.shrinks is not None:
            _shrink(item.shrinks, item.path)
        if item.path.is_dir():
            shutil.rmtree(item.path)
        else:
            item.path.unlink(missing_ok=True)


def _living(root: Path) -> list[str]:
    """Return what is at work, or cannot be told not to be."""
    owners = [f"{folder.name} ({owner})" for folder in _stages(root) if (owner := live_owner(folder))]
    sent = [(submission, job) for submission in submissions(root) for job in submission.sent()]
    if not sent or owners:
        return owners
    forget()
    view = look()
    if not view.known and not all(_finished(submission, root) for submission in submissions(root)):
        return [f"nobody knows ({view.problem})"]
    mine = {entry.name for entries in view.jobs.values() for entry in entries.values()}
    return sorted({job.key for s, job in sent if f"btrm-{s.name}-{job.key}" in mine})


def _stages(root: Path) -> list[Path]:
    return [path for path in sorted(root.iterdir()) if (path / REQUEST).exists() or (path / MANIFEST).exists()]


def _claimed(root: Path) -> set[Path]:
    """Return every file that a manifest of the run claims."""
    manifests = [(folder, read_manifest(folder)) for folder in _stages(root)]
    return {folder / name for folder, manifest in manifests if manifest for name in manifest.outputs}


def _leavings(root: Path) -> Iterator[Removal]:
    for folder in _stages(root):
        for name in _DEAD:
            if (folder / name).exists():
                yield Removal(folder / name, "left by dead attempts", _size(folder / name))


def _finished(submission: Submission, root: Path) -> bool:
    return all(is_complete(step, root) for step in submission.plan().steps)


def _old_records(root: Path, days: float) -> Iterator[Removal]:
    """Yield the logs and states of submissions that are complete and old; plan and ledger stay."""
    for submission in submissions(root):
        folders = [submission.directory / name for name in _RECORDS if (submission.directory / name).is_dir()]
        newest = max((_newest(folder) for folder in folders), default=0.0)
        if _finished(submission, root) and time.time() - newest > days * 86400:
            for folder in folders:
                of = submission if folder.name == "state" else None
                yield Removal(folder, f"of {submission.name}, complete for {days:g} days", _size(folder), of=of)


def _unused_code(root: Path) -> Iterator[Removal]:
    used = {Path(code) for submission in submissions(root) if (code := submission.plan().code)}
    for folder in sorted((root / ".code").glob("*")):
        if folder.resolve() not in {path.resolve() for path in used}:
            yield Removal(folder, "a snapshot that no submission uses", _size(folder))


def _optimizers(root: Path) -> Iterator[Removal]:
    """Yield what only a resume would read, of every whole checkpoint but a trainer's last."""
    for folder in _stages(root):
        whole = [path for path in checkpoints(folder / "checkpoints") if is_whole(path)]
        for checkpoint in whole[:-1]:
            for path in sorted({path for name in _OPTIMIZER for path in checkpoint.glob(name)}):
                yield Removal(path, f"{whole[-1].name} is what a trainer resumes from", _size(path), checkpoint)


def _keep_spending(submission: Submission) -> None:
    write_json(submission.directory / SPENT, [asdict(entry) for entry in entries_of(submission, "")])


def _shrink(checkpoint: Path, gone: Path) -> None:
    """Take a path out of what a checkpoint's mark names, so that it is whole before and after."""
    mark = read_mark(checkpoint)
    assert mark is not None
    lost = gone.relative_to(checkpoint)
    kept = {n: size for n, size in file_sizes(checkpoint).items() if lost not in (Path(n), *Path(n).parents)}
    write_json(checkpoint / WHOLE, {**mark, "files": kept})


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file())


def _newest(folder: Path) -> float:
    return max((entry.stat().st_mtime for entry in os.scandir(folder)), default=folder.stat().st_mtime)
